//! The certificates that the Milvus documentation has its readers make, with openssl and its parameters: RSA 2048, CN and DNS
//! SAN `localhost`, extended key usage serverAuth on the server's leaf and on the client's.
use std::path::{Path, PathBuf};

use crate::authority::{write_public, write_secret};
use crate::command::openssl;

const EXTENSIONS: &str = "[ req ]
distinguished_name = req_distinguished_name
[ req_distinguished_name ]
[ v3_req ]
basicConstraints = CA:FALSE
keyUsage = nonRepudiation, digitalSignature, keyEncipherment
extendedKeyUsage = serverAuth
subjectAltName = @alt_names
[ alt_names ]
DNS.1 = localhost
";

/// A folder with the seven documented files.
#[derive(Debug, Clone)]
pub struct Documented {
    folder: PathBuf,
}

impl Documented {
    /// Makes a CA, a server's leaf and a client's.
    #[must_use]
    pub fn create(folder: &Path) -> Self {
        write_public(&folder.join("openssl.cnf"), EXTENSIONS);
        let this = Self { folder: folder.into() };
        this.run("genrsa -out ca.key 2048");
        this.run(
            "req -new -x509 -days 3650 -key ca.key -out ca.pem -subj /C=CN/ST=Test/L=Test/O=Test/OU=Test/CN=localhost",
        );
        this.issue("server");
        this.issue("client");
        this
    }

    /// Makes a new key and leaf, in place and in the documented order: the key, a request, the certificate.
    pub fn issue(&self, name: &str) {
        self.new_key(name);
        self.new_leaf(name);
    }

    /// The first half of [`Self::issue`]: the key on disk is new, the certificate is still of the old one.
    pub fn new_key(&self, name: &str) {
        self.run(&format!("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out {name}.key"));
    }

    /// The second half.
    pub fn new_leaf(&self, name: &str) {
        self.run(&format!(
            "req -new -nodes -key {name}.key -out {name}.csr -subj /C=CN/ST=Test/L=Test/O=Test/OU=Test/CN=localhost \
             -config openssl.cnf -extensions v3_req"
        ));
        self.run(&format!(
            "x509 -req -days 3650 -in {name}.csr -out {name}.pem -CA ca.pem -CAkey ca.key -CAcreateserial \
             -extfile openssl.cnf -extensions v3_req"
        ));
    }

    /// One of the files.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Copies key and certificate over those of another folder, key first, each in place.
    ///
    /// # Panics
    /// When a file cannot be read or written.
    pub fn copy_pair_to(&self, other: &Self) {
        let read = |name| std::fs::read_to_string(self.path(name)).expect("a documented file");
        write_secret(&other.path("server.key"), &read("server.key"));
        write_public(&other.path("server.pem"), &read("server.pem"));
    }

    fn run(&self, arguments: &str) {
        let done = openssl(&arguments.split_whitespace().collect::<Vec<_>>()).folder(&self.folder).run();
        assert!(done.success, "openssl {arguments}: {}", done.text());
    }
}
