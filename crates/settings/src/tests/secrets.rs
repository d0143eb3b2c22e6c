//! A secret's value is in no error, no notice and no Debug, whatever is wrong with the configuration that holds it.
use std::error::Error;
use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;

use crate::{KEYS, KeyInfo, Settings, SettingsError};

/// Three files over one another, and variables.
#[derive(Debug, Default, Clone)]
struct Given {
    milvus: String,
    user: String,
    env: Vec<(String, String)>,
}

impl Given {
    fn file(text: impl Into<String>) -> Self {
        Self { milvus: text.into(), ..Self::default() }
    }

    fn over(mut self, user: impl Into<String>) -> Self {
        self.user = user.into();
        self
    }

    fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Everything that loading says: the chain of errors and their Debug, or the notices and the Debug of what came out.
    fn said(&self) -> (bool, String) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("milvus.yaml"), &self.milvus).unwrap();
        std::fs::write(folder.path().join("user.yaml"), &self.user).unwrap();
        let loaded = Settings::load_with_env(folder.path(), self.env.clone().into_iter());
        let named = crate::named(Some(folder.path()), self.env.clone().into_iter());
        let texts = named.err().map(|error| chain(&error)).unwrap_or_default();
        match loaded {
            Ok(settings) => (true, format!("{settings:?}{texts}")),
            Err(error) => (false, format!("{}{texts}", chain(&error))),
        }
    }
}

fn chain(error: &SettingsError) -> String {
    let mut text = format!("{error:?} {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(" {error:?} {error}"));
        cause = error.source();
    }
    text
}

/// `a.b.c` with this text behind it, nested as a file has it.
fn nested(path: &str, value: &str) -> String {
    let parts: Vec<_> = path.split('.').collect();
    let lines = parts.iter().enumerate().map(|(depth, part)| format!("{}{part}:", "  ".repeat(depth)));
    format!("{}{value}\n", lines.collect::<Vec<_>>().join("\n"))
}

fn secrets() -> impl Iterator<Item = &'static KeyInfo> {
    KEYS.iter().filter(|key| key.secret)
}

/// What an operator may write where a secret belongs.
fn mistypings(word: &str) -> Vec<String> {
    [
        " W",
        " 'W'",
        " \"W\"",
        " [W]",
        " {W: }",
        " {W}",
        " {W: 1, W: 2}",
        "\n      W:\n",
        "\n      W: 1\n",
        "\n      - W\n",
        "\n      ? W\n",
        "\n    W:\n",
        "\nW:\n",
        "\nW: 1\n",
        " |\n        W\n",
        " >\n  W\n",
        " &W",
        " *W",
        " !W",
        " !W x",
        " @W",
        " %W",
        " `W",
        " 'W",
        " \"W",
        " [W",
        " {W: ",
        " W: W",
        "\tW",
        "\n\tW",
        "\n\tW: 1",
        " W\n      W: 1",
        " W # W",
        " # W",
        "W",
        "=W",
        "=W: 1",
        " \"\\W\"",
        " \"\\xW\"",
        " x: y: W",
        " a:b: W",
        " - W",
        " ? W",
        " {tls: {caPemPath: W}}",
        " {W: {tls: {caPemPath: a}}}",
        " ''",
        " ~",
        "",
        " {}",
        " []",
        " 0",
        " true",
    ]
    .map(|shape| shape.replace('W', word))
    .into()
}

/// A key with a typing error in its last part, or in the wrong place.
fn misplacings(key: &KeyInfo) -> Vec<String> {
    let (section, leaf) = key.path.rsplit_once('.').unwrap();
    let short = &leaf[..leaf.len() - 1];
    [
        "",
        "x",
        "tls.",
        "internaltls.",
        "cluster.",
        "management.",
        "coordinator.",
        "common.",
        "minio.ssl.",
        "cluster.dataNodes.",
    ]
    .map(|above| format!("{above}{leaf}"))
    .into_iter()
    .chain([
        format!("{section}.{short}"),
        format!("{section}.{leaf}s"),
        format!("{section}.Q{leaf}"),
        key.path.to_owned(),
    ])
    .collect()
}

/// What is wrong beside a secret that is well written.
fn errors_beside() -> Vec<String> {
    let keys = KEYS.iter().filter(|key| !key.secret);
    let wrong = keys.flat_map(|key| {
        [" [1]", " {a: 1}", "", " ''", " \u{1}", " nonsense of no kind", " -1", " &a 1", " *a", "\t1", "s: 1"]
            .map(|value| nested(key.path, value))
    });
    wrong
        .chain(["tls: 5\n", "- a\n", "a: [\n", "---\n---\n", "proxy: {port: 1, port: 2}\n"].map(str::to_owned))
        .collect()
}

fn hides(given: &Given, words: &[&str]) -> Result<bool, String> {
    let (loaded, said) = given.said();
    match words.iter().find(|word| said.contains(**word)) {
        None => Ok(loaded),
        Some(word) => Err(format!("`{word}` of\n{given:#?}\nis in: {said}")),
    }
}

/// Invariant 7.
#[test]
fn invariant_7_no_secret_in_any_error() {
    let mut refused = 0;
    for key in secrets() {
        for path in misplacings(key) {
            for value in mistypings("hunter2") {
                let text = nested(&path, &value);
                let given = Given::file(&text).env("COMMON_SECURITY_AUTHORIZATIONENABLED", "true");
                refused += usize::from(!hides(&given, &["hunter2"]).unwrap());
                if path == key.path {
                    let over = Given::file("proxy: {port: 1}\n").over(format!("proxy:\n  port: 2\n{text}"));
                    refused += usize::from(!hides(&over, &["hunter2"]).unwrap());
                }
            }
        }
    }
    assert!(refused > 500, "the mistypings are hardly ever refused: {refused}");
}

#[test]
fn empty_override_shows_no_secret() {
    for key in secrets() {
        for empty in ["", " ''", " ~", " {}", " []", " # nothing"] {
            let given = Given::file(nested(key.path, " hunter2")).over(nested(key.path, empty));
            hides(&given, &["hunter2"]).unwrap();
        }
    }
}

#[test]
fn errors_beside_show_no_secret() {
    let held: String = secrets().map(|key| format!("{}: hunter2\n", key.path)).collect();
    let mut refused = 0;
    for beside in errors_beside() {
        for given in
            [Given::file(&held).over(&beside), Given::file(format!("{held}{beside}")), Given::file(&beside).over(&held)]
        {
            refused += usize::from(!hides(&given, &["hunter2"]).unwrap());
        }
    }
    assert!(refused > 100, "{refused}");
}

#[test]
fn variables_show_no_secret() {
    for key in secrets() {
        let names = key.env_names();
        for name in &names {
            hides(&Given::default().env(name, "hunter2"), &["hunter2"]).unwrap();
            hides(&Given::file(nested(key.path, " hunter3")).env(name, "hunter2"), &["hunter2", "hunter3"]).unwrap();
            hides(&Given::default().env(&name[..name.len() - 1], "hunter2"), &["hunter2"]).unwrap();
            hides(&Given::default().env(name.to_lowercase(), "hunter2"), &["hunter2"]).unwrap();
        }
        let both = names.iter().fold(Given::default(), |given, name| given.env(name, format!("hunter2{name}")));
        hides(&both, &["hunter2"]).unwrap();
        let twice = Given::file(format!("{0}: hunter2\n{0}: hunter3\n", key.path));
        assert!(!hides(&twice, &["hunter2", "hunter3"]).unwrap());
    }
    let link = Given::default().env("MINIO_PORT", "tcp://hunter2:hunter3@10.0.0.1:9000");
    hides(&link, &["hunter2", "hunter3"]).unwrap();
}

/// A URL with a name and a password, where a host or another value belongs. What takes any text takes this one, too.
#[test]
fn credentials_in_an_address_are_hidden() {
    let urls =
        ["http://who:hunter2@host:1", "'who:hunter2@host:1'", "http://hunter2@host", "https://h/?Signature=hunter2"];
    for key in KEYS {
        for url in urls {
            let loaded = crate::tests::load(&nested(key.path, &format!(" {url}")));
            let said = match &loaded {
                Ok(settings) => format!("{:?} {:?}", settings.notices, settings.warnings),
                Err(error) => chain(error),
            };
            assert!(!said.contains("hunter2"), "{}: {said}", key.path);
        }
    }
}

proptest! {
    /// Any word as a secret, in any mistyping of any place, in any layer.
    #[test]
    fn harness_secrets_stay_hidden(
        word in "[A-Z]{2}[a-z0-9]{8}[A-Z0-9]{6}",
        key in 0..secrets().count(),
        place in any::<prop::sample::Index>(),
        shape in any::<prop::sample::Index>(),
        beside in any::<prop::sample::Index>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let key = secrets().nth(key).unwrap();
        static ERRORS: LazyLock<Vec<String>> = LazyLock::new(errors_beside);
        let (places, shapes, errors) = (misplacings(key), mistypings(&word), &*ERRORS);
        let text = nested(&places[place.index(places.len())], &shapes[shape.index(shapes.len())]);
        let mut mutated = text.clone();
        mutated.remove(cut.index(text.len() - 1));
        let beside = &errors[beside.index(errors.len())];
        for given in [Given::file(&text).over(beside), Given::file(beside).over(&mutated), Given::file(format!("{beside}{text}"))] {
            // A letter less of the secret is no secret; look for what is left of it on either side.
            let found = hides(&given, &[&word[2..9], &word[8..15]]);
            prop_assert!(found.is_ok(), "{}", found.unwrap_err());
        }
    }
}

#[test]
fn debug_of_layers_is_hidden() {
    let layer = crate::layers::parse(Path::new("milvus.yaml"), "minio: {secretAccessKey: hunter2}\n").unwrap();
    let mut values = crate::values::Values::default();
    values.put(&layer).unwrap();
    let shown = format!("{layer:?} {values:?}");
    assert!(!shown.contains("hunter2"), "{shown}");
}
