#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| weir_fuzz::engine_answer(data));

#[cfg(not(fuzzing))]
fn main() {
    println!("run: cargo xtask fuzz engine_answer");
}
