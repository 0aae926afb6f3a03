//! Dev mode: an own CA, a certificate for this machine and a key for tokens, made once in `data_dir`/dev. Whoever
//! reads that directory can be anyone: never for production.

use std::{
    fs, io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519,
};

use crate::{
    auth::{SignError, SigningKey},
    config::TlsConfig,
};

/// `kid` of the dev token key.
pub const DEV_KID: &str = "dev";
/// Names that the dev certificate is for.
const DEV_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Why there are no dev credentials.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// A file or directory.
    #[error("dev credentials {}: {source}", path.display())]
    File {
        /// It.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The certificates could not be made.
    #[error("dev certificates: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The token key cannot be used.
    #[error(transparent)]
    Key(#[from] SignError),
}

/// Paths of the dev credentials of a data directory.
#[derive(Clone, Debug)]
pub struct DevFiles {
    dir: PathBuf,
}

impl DevFiles {
    /// Those of this data directory, whether or not they exist.
    pub fn of(data_dir: &Path) -> Self {
        Self { dir: data_dir.join("dev") }
    }

    /// The CA that clients are to trust.
    pub fn ca(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// Certificate and key for `[tls]`.
    pub fn tls(&self) -> TlsConfig {
        TlsConfig { cert: self.dir.join("cert.pem"), key: self.dir.join("key.pem") }
    }

    /// The private key of tokens.
    pub fn token_key(&self) -> PathBuf {
        self.dir.join("token-key.pem")
    }

    /// Makes them, unless they exist.
    ///
    /// # Errors
    /// The directory cannot be written, or what it holds cannot be used.
    pub fn ensure(&self) -> Result<SigningKey, DevError> {
        if !self.dir.exists() {
            self.make()?;
        }
        Ok(SigningKey::read(DEV_KID, &self.token_key())?)
    }

    /// Makes all of them beside, then renames: a half-made directory is never used.
    fn make(&self) -> Result<(), DevError> {
        let half = self.dir.with_extension("half-made");
        let file_error = |path: &Path| {
            let path = path.to_owned();
            move |source| DevError::File { path, source }
        };
        if half.exists() {
            fs::remove_dir_all(&half).map_err(file_error(&half))?;
        }
        fs::create_dir_all(&half).map_err(file_error(&half))?;
        fs::set_permissions(&half, fs::Permissions::from_mode(0o700)).map_err(file_error(&half))?;
        for (name, pem) in credentials()? {
            write_private(&half.join(name), &pem).map_err(file_error(&half.join(name)))?;
        }
        fs::rename(&half, &self.dir).map_err(file_error(&self.dir))
    }
}

fn credentials() -> Result<[(&'static str, String); 5], rcgen::Error> {
    let mut ca = CertificateParams::new(Vec::<String>::new())?;
    ca.distinguished_name.push(DnType::CommonName, "Talaria dev CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_key = KeyPair::generate()?;
    let ca_cert = ca.self_signed(&ca_key)?;
    let ca_key_pem = ca_key.serialize_pem();

    let mut node = CertificateParams::new(DEV_NAMES.map(str::to_owned).to_vec())?;
    node.distinguished_name.push(DnType::CommonName, "Talaria dev node");
    node.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    node.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let cert = node.signed_by(&key, &Issuer::new(ca, ca_key))?;

    let token_key = KeyPair::generate_for(&PKCS_ED25519)?;
    Ok([
        ("ca.pem", ca_cert.pem()),
        ("ca-key.pem", ca_key_pem),
        ("cert.pem", cert.pem()),
        ("key.pem", key.serialize_pem()),
        ("token-key.pem", token_key.serialize_pem()),
    ])
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    io::Write::write_all(&mut file, text.as_bytes())?;
    file.sync_all()
}
