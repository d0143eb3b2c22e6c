//! docker and compose, as they are on this machine.
use std::path::{Path, PathBuf};
use std::time::Duration;

use test_util::command::{Run, Said, program};

/// A cold build on two cores.
const BUILD: Duration = Duration::from_secs(45 * 60);
/// The base of the Dockerfile's own choice.
const BASE: &str = "rust:1.95.0-bookworm";
const LOCAL_BASE: &str = "internaltls-build";

/// An engine that answers, and a compose tool.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    compose: Vec<&'static str>,
}

impl Engine {
    /// Looks for both.
    pub(crate) fn find() -> Result<Self, String> {
        if !is_there("docker") {
            return Err("docker is not installed".into());
        }
        let version = program("docker").args(["version", "--format", "{{.Server.Version}}"]).run();
        if !version.success {
            return Err(format!("no engine answers ({})", version.err.trim()));
        }
        let candidates = [vec!["docker", "compose"], vec!["docker-compose"]];
        let works = |words: &&Vec<&str>| {
            is_there(words[0]) && program(words[0]).args(&words[1..]).args(["version"]).run().success
        };
        let compose =
            candidates.iter().find(works).ok_or("neither `docker compose` nor `docker-compose` is installed")?;
        Ok(Self { compose: compose.clone() })
    }

    /// `docker ARGUMENTS…`
    pub(crate) fn docker(&self, arguments: &[&str]) -> Run {
        program("docker").args(arguments).within(Duration::from_secs(120))
    }

    /// What `docker ARGUMENTS…` said.
    pub(crate) fn done(&self, arguments: &[&str]) -> String {
        let said = self.docker(arguments).run();
        assert!(said.success, "docker {}: {}", arguments.join(" "), said.text());
        said.out.trim().to_owned()
    }

    /// The compose tool with its first arguments.
    pub(crate) fn compose(&self, arguments: &[&str]) -> Run {
        program(self.compose[0]).args(&self.compose[1..]).args(arguments).within(Duration::from_secs(180))
    }

    /// The image under test.
    pub(crate) fn image(&self) -> String {
        if let Ok(ready) = std::env::var("CONTAINERS_IMAGE") {
            return ready;
        }
        let base = self.base();
        let profile = std::env::var("CONTAINERS_PROFILE").unwrap_or_else(|_| "release".into());
        println!("containers: building in {base} with the profile {profile}; some minutes the first time");
        let (base, profile) = (format!("BUILD_IMAGE={base}"), format!("PROFILE={profile}"));
        let arguments = ["build", "--file", "docker/Dockerfile", "--tag", "internaltls:under-test"];
        let built = program("docker")
            .args(arguments)
            .args(["--build-arg", &base, "--build-arg", &profile, "."])
            .folder(&root())
            .within(BUILD)
            .run();
        assert!(built.success, "the image cannot be built: {}", tail(&built));
        "internaltls:under-test".into()
    }

    /// The image to build in.
    fn base(&self) -> String {
        if let Ok(named) = std::env::var("BUILD_IMAGE") {
            return named;
        }
        let there = self.docker(&["image", "inspect", BASE]).run().success;
        if there || self.docker(&["pull", "--quiet", BASE]).run().success {
            return BASE.into();
        }
        let made = program(root().join("docker/local-base.sh")).args([LOCAL_BASE]).within(BUILD).run();
        assert!(made.success, "{BASE} cannot be pulled, and a base of this machine's cannot be made: {}", tail(&made));
        LOCAL_BASE.into()
    }

    /// An image that differs from `image` in a label.
    pub(crate) fn successor(&self, image: &str) -> String {
        let name = "internaltls:successor";
        let file = format!("FROM {image}\nLABEL successor=yes\n");
        let built = self.docker(&["build", "--tag", name, "-"]).input(file).run();
        assert!(built.success, "{}", built.text());
        name.into()
    }
}

fn is_there(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

/// The project's folder.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().into()
}

fn tail(said: &Said) -> String {
    let text = said.text();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
