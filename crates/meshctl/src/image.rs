//! The names that the image gives this program, so that compose files written for Milvus start it unchanged.
//!
//! 1. `milvus run standalone` is `run standalone` with the folders of the Milvus image: configuration
//!    /milvus/configs/milvus.yaml where it is mounted, data in /var/lib/milvus, clients and probes served on every address.
//! 2. `curl -f URL` is the probe of such a file.
//! 3. Everything else goes to the command line that is called `meshctl`.
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use clap::Parser;

use crate::{Cli, health};

const CONFIG: &str = "/milvus/configs/milvus.yaml";
const DATA: &str = "/var/lib/milvus";

/// Runs what `arguments`, the program's name first, ask for.
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    let (name, rest) = arguments.split_first().map_or(("", &[][..]), |(name, rest)| (file_name(name), rest));
    match name {
        "curl" => health::as_curl(rest),
        "milvus" => Cli::parse_from(milvus(rest, Path::new(CONFIG).exists())?).run(),
        _ => Cli::parse_from(arguments).run(),
    }
}

/// Whether this is to be a process that serves, to which SIGHUP means that its files are to be looked at.
pub(crate) fn serves(arguments: &[String]) -> bool {
    arguments.get(1).is_some_and(|word| word == "up" || word == "run")
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// The same in our words.
fn milvus(arguments: &[String], configured: bool) -> anyhow::Result<Vec<String>> {
    let ["run", "standalone", more @ ..] = &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] else {
        bail!(
            "`milvus {}`: of milvus there is `milvus run standalone` here; for the roles see `meshctl run --help`",
            arguments.join(" ")
        );
    };
    let mut words = vec!["meshctl", "run", "standalone", "--dir", DATA, "--address", "0.0.0.0"];
    if configured {
        words.extend(["--config", CONFIG]);
    }
    Ok(words.iter().chain(more).map(ToString::to_string).collect())
}

/// This process' arguments; what is no text is told apart by nobody here.
pub(crate) fn arguments() -> Vec<String> {
    std::env::args_os().map(|word| PathBuf::from(word).to_string_lossy().into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn milvus_standalone_has_the_folders_of_its_image() {
        let said = milvus(&words("run standalone"), true).unwrap().join(" ");
        assert_eq!(
            said,
            "meshctl run standalone --dir /var/lib/milvus --address 0.0.0.0 --config /milvus/configs/milvus.yaml"
        );
        Cli::try_parse_from(words(&said)).unwrap();
        assert!(!milvus(&words("run standalone"), false).unwrap().join(" ").contains("--config"));
    }

    /// The documented curl asks at 8080, where REST is served when the file names no port.
    #[test]
    fn documented_ports_are_published() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docker");
        let compose = std::fs::read_to_string(root.join("compose.tls.yaml")).unwrap();
        let config = std::fs::read_to_string(root.join("milvus.yaml")).unwrap();
        assert!(!config.contains("proxy:"), "its ports are the defaults");
        for port in ["19530", "8080", "9091"] {
            assert!(compose.contains(&format!("- \"{port}:{port}\"")), "{port} is not published");
        }
    }

    #[test]
    fn other_commands_of_milvus_say_what_there_is() {
        for other in ["", "run", "run proxy", "standalone"] {
            let error = milvus(&words(other), true).unwrap_err().to_string();
            assert!(error.contains("`milvus run standalone`"), "{error}");
        }
    }

    #[test]
    fn a_path_is_no_name() {
        assert_eq!(["/usr/bin/milvus", "curl"].map(file_name), ["milvus", "curl"]);
    }
}
