//! Child processes: a clean environment for a nested cargo, captured output, time limits.

use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::paths;

/// `cargo` of the toolchain in use, for native work in the repository's root.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(paths::root());
    forget(&mut command, is_from_outer_cargo);
    command
}

/// Takes the variables whose name `matches` out of the child's environment.
pub fn forget(command: &mut Command, matches: fn(&str) -> bool) {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(matches) {
            command.env_remove(name);
        }
    }
}

/// What the outer `cargo run` says about *this* crate. A nested cargo that sees it rebuilds
/// whatever watches such a variable, once for each way it was started.
pub fn is_from_outer_cargo(name: &str) -> bool {
    name == "CARGO"
        || name == "CARGO_CRATE_NAME"
        || name == "CARGO_PRIMARY_PACKAGE"
        || ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CFG_", "CARGO_FEATURE_"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

/// What a user or an outer cargo may have set for native code, and what would be wrong for
/// wasm32: compiler, flags (`-C target-cpu=native`), target, profile and target folder.
pub fn is_for_native_code(name: &str) -> bool {
    is_from_outer_cargo(name)
        || name.starts_with("CARGO_PROFILE_")
        || name.starts_with("CARGO_UNSTABLE_")
        || matches!(
            name,
            "RUSTC"
                | "RUSTDOC"
                | "RUSTFLAGS"
                | "RUSTC_WORKSPACE_WRAPPER"
                | "RUSTC_BOOTSTRAP"
                | "CARGO_ENCODED_RUSTFLAGS"
                | "CARGO_TARGET_DIR"
                | "CARGO_BUILD_RUSTC"
                | "CARGO_BUILD_RUSTFLAGS"
                | "CARGO_BUILD_TARGET"
                | "CARGO_BUILD_TARGET_DIR"
        )
}

/// Runs `command` with its output on the terminal.
pub fn must_succeed(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {}", shown(command)))?;
    if !status.success() {
        bail!("this failed ({status}):\n  {}", shown(command));
    }
    Ok(())
}

/// The standard output of `command`, which must succeed; its error output goes into the error.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", shown(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("this failed ({}):\n  {}\n{}", output.status, shown(command), said.trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs `command` quietly, for at most `limit`. The error is one line, for a message that goes on
/// to say what is tried instead.
pub fn quietly_within(command: &mut Command, limit: Duration) -> Result<()> {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let mut stderr = child.stderr.take();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        if let Some(pipe) = stderr.as_mut() {
            pipe.read_to_string(&mut text).ok();
        }
        text
    });
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if started.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            bail!("no success within {} s", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    if status.success() {
        return Ok(());
    }
    let said = reader.join().unwrap_or_default();
    let errors: Vec<&str> = said.lines().filter(|line| line.contains("error")).collect();
    let line = errors.first().copied().or(said.lines().last()).unwrap_or("no message");
    bail!("{}", line.trim())
}

/// The file that `name` starts, the way a shell would look it up.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| is_executable(file))
}

#[cfg(unix)]
fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_executable(file: &Path) -> bool {
    file.is_file()
}

/// Hands the terminal, its signals and the exit code over to `command`.
#[cfg(unix)]
pub fn become_that(command: &mut Command) -> Result<()> {
    use std::os::unix::process::CommandExt;
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start {}", shown(command)))
}

#[cfg(not(unix))]
pub fn become_that(command: &mut Command) -> Result<()> {
    must_succeed(command)
}

/// A command as one could type it in the repository's root.
pub fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let program = if program.file_name() == Some(OsStr::new("cargo")) && program.is_absolute() {
        // The full path of a toolchain's cargo helps nobody; Debian's is told apart by its route.
        match program.starts_with("/usr/bin") {
            true => "/usr/bin/cargo".into(),
            false => "cargo".into(),
        }
    } else {
        program.display().to_string()
    };
    let variables = command
        .get_envs()
        .filter_map(|(name, value)| Some((name.to_string_lossy(), value?.to_string_lossy())))
        .map(|(name, value)| format!("{name}={} ", quoted(&value)));
    let args = command.get_args().map(|arg| format!(" {}", quoted(&arg.to_string_lossy())));
    variables.chain([program]).chain(args).collect()
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,@+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outer_cargo_is_forgotten_and_the_users_settings_stay() {
        for name in ["CARGO", "CARGO_PKG_NAME", "CARGO_MANIFEST_DIR"] {
            assert!(is_from_outer_cargo(name), "{name}");
        }
        for name in ["CARGO_HOME", "CARGO_TERM_COLOR", "CARGO_HTTP_CAINFO", "RUSTUP_TOOLCHAIN"] {
            assert!(!is_from_outer_cargo(name) && !is_for_native_code(name), "{name}");
        }
        for name in ["RUSTFLAGS", "RUSTC", "CARGO_TARGET_DIR", "CARGO_PROFILE_RELEASE_LTO"] {
            assert!(is_for_native_code(name), "{name}");
        }
    }

    #[test]
    fn a_shown_command_can_be_typed() {
        let mut command = Command::new("/some/toolchain/bin/cargo");
        command.env("A", "b c").args(["test", "it's", "--x=1"]);
        assert_eq!(shown(&command), r"A='b c' cargo test 'it'\''s' --x=1");
    }

    #[cfg(unix)]
    #[test]
    fn a_quiet_run_gives_one_line_or_its_time_limit() {
        let mut failing = Command::new("sh");
        failing.args(["-c", "echo note >&2; echo 'error: no route' >&2; exit 3"]);
        let error = quietly_within(&mut failing, Duration::from_secs(20)).unwrap_err();
        assert_eq!(error.to_string(), "error: no route");

        let error = quietly_within(Command::new("sleep").arg("20"), Duration::ZERO).unwrap_err();
        assert_eq!(error.to_string(), "no success within 0 s");
    }
}
