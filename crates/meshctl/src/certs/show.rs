//! `certs show`: what certificates say, with the hashes that a distrust list names them by.
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use internaltls::inspect::{self, CertificateSummary, Contents};
use serde::Serialize;

use super::authority::date;

/// The arguments of `certs show`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  meshctl certs show server.pem ca.pem\n  meshctl certs show --json server.pem | jq -r '.[0].spki'\n\n\
    A line of the distrust list (internaltls.distrustPath, tls.distrustPath) is one of the two hashes with its mark, as printed. \
    `spki:` is the hash of the public key: it distrusts this certificate and every renewal with the same key. `cert:` is the hash \
    of this certificate alone, what `openssl x509 -fingerprint -sha256` tells: a renewal is not distrusted by it."
)]
pub struct Args {
    /// Certificates and CA bundles, PEM
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// One JSON array, an object a certificate
    #[arg(long)]
    pub json: bool,
}

/// A certificate of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// Its file.
    pub file: PathBuf,
    /// Which one of the file, from 1.
    pub number: usize,
    /// Its distinguished name.
    pub subject: String,
    /// Its subject alternative names.
    pub names: Vec<String>,
    /// Its serial number, lower-case hex.
    pub serial: String,
    /// The beginning of its validity, RFC 3339.
    pub not_before: String,
    /// The end of its validity, RFC 3339.
    pub not_after: String,
    /// Whether it may sign certificates.
    pub ca: bool,
    /// The kind and size of its key.
    pub key: String,
    /// The SHA-256 of its public key, as a distrust list takes it.
    pub spki: String,
    /// The SHA-256 of the whole certificate, as a distrust list takes it.
    pub cert: String,
}

impl Args {
    /// Prints every certificate of every file.
    ///
    /// # Errors
    /// As [`show`]; then nothing is printed.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let mut shown = Vec::new();
        for file in &self.files {
            shown.extend(show(file)?);
        }
        if self.json {
            println!("{}", serde_json::to_string_pretty(&shown)?);
        } else {
            let texts: Vec<_> = shown.iter().map(Shown::text).collect();
            print!("{}", texts.join("\n"));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The certificates of a file.
///
/// # Errors
/// When it cannot be read as a process would read it, or holds a key and no certificate.
pub fn show(file: &Path) -> anyhow::Result<Vec<Shown>> {
    match inspect::file(file)? {
        Contents::Certificates(found) => {
            Ok(found.iter().enumerate().map(|(at, found)| Shown::of(file, at + 1, found)).collect())
        }
        _ => bail!("{} holds a private key; name the certificate that was issued with it", file.display()),
    }
}

impl Shown {
    fn of(file: &Path, number: usize, found: &CertificateSummary) -> Self {
        Self {
            file: file.to_owned(),
            number,
            subject: found.subject.clone(),
            names: found.sans.clone(),
            serial: found.serial.clone(),
            not_before: date(found.not_before.into()),
            not_after: date(found.not_after.into()),
            ca: found.is_ca,
            key: found.key.to_string(),
            spki: format!("spki:{}", found.spki_sha256),
            cert: format!("cert:{}", found.sha256),
        }
    }

    fn text(&self) -> String {
        let names = if self.names.is_empty() { "none".to_owned() } else { self.names.join(", ") };
        format!(
            "{} (certificate {}{})\n  subject  {}\n  names    {}\n  serial   {}\n  valid    {} to {}\n  key      {}\n  {}\n  {}\n",
            self.file.display(),
            self.number,
            if self.ca { ", a CA" } else { "" },
            printable(&self.subject),
            printable(&names),
            self.serial,
            self.not_before,
            self.not_after,
            self.key,
            self.spki,
            self.cert
        )
    }
}

/// A name may hold what moves a terminal's cursor.
fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}
