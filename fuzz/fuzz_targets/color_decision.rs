#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| weir_fuzz::color_decision(data));

#[cfg(not(fuzzing))]
fn main() {
    println!("run: cargo xtask fuzz color_decision");
}
