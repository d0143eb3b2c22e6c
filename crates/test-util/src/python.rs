//! The stock Python client, in an environment of its own that all tests share.
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;

use crate::command::{Said, program};

/// The version that all tests use.
const PYMILVUS: &str = "pymilvus==3.0.2";
const REMEDY: &str = "needed: python3 with the venv module, and a package index that has pymilvus";

/// An interpreter with pymilvus, and a folder of scripts.
#[derive(Debug, Clone)]
pub struct Python {
    interpreter: PathBuf,
    scripts: PathBuf,
}

impl Python {
    /// Makes the environment in `target`, once for all runs; several test processes may ask at the same time.
    ///
    /// # Panics
    /// When it cannot be made; the message has the remedy.
    #[must_use]
    pub fn with_pymilvus(target: &Path, scripts: &Path) -> Self {
        static ONCE: OnceLock<PathBuf> = OnceLock::new();
        let interpreter = ONCE.get_or_init(|| environment(target)).clone();
        Self { interpreter, scripts: scripts.into() }
    }

    /// The interpreter.
    #[must_use]
    pub fn interpreter(&self) -> &Path {
        &self.interpreter
    }

    /// Runs a script with `argument` as JSON, and gives the JSON of its last line.
    ///
    /// # Panics
    /// When the script fails; the message has all it said.
    #[must_use]
    pub fn run(&self, script: &str, argument: &Value) -> Value {
        let said = self.start(script, argument);
        assert!(said.success, "{script} failed with {argument}:\n{}", said.text());
        said.json()
    }

    /// Runs a script that may fail.
    #[must_use]
    pub fn start(&self, script: &str, argument: &Value) -> Said {
        program(&self.interpreter)
            .args([self.scripts.join(script).as_os_str(), argument.to_string().as_ref()])
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("GRPC_VERBOSITY", "NONE")
            .within(Duration::from_secs(120))
            .run()
    }
}

fn environment(target: &Path) -> PathBuf {
    let folder = target.join("pymilvus-venv");
    fs::create_dir_all(target).expect("the build folder can be written");
    let lock = File::create(target.join("pymilvus-venv.lock")).expect("the build folder can be written");
    lock.lock().expect("a file can be locked");
    let (interpreter, made) = (folder.join("bin/python"), folder.join(PYMILVUS));
    if !made.exists() {
        let _ = fs::remove_dir_all(&folder);
        step(program("python3").args(["-m", "venv"]).args([&folder]));
        step(program(&interpreter).args(["-m", "pip", "install", "--quiet", PYMILVUS]));
        File::create(made).expect("the build folder can be written");
    }
    interpreter
}

fn step(run: crate::command::Run) {
    let said = run.within(Duration::from_secs(300)).run();
    assert!(said.success, "pymilvus cannot be installed ({REMEDY}):\n{}", said.text());
}
