//! `manxctl certs`: certificates for etcd, and what etcd lets their owners do.

mod authority;
mod secrets;

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::SystemTime;

use anyhow::Context as _;

use crate::cli::{Certs, CertsCommand, CertsMake, CertsRoles, Place};
use crate::datastore;
use crate::render;
use authority::{Authority, Certificate, Subject, Validity};

/// The files of everybody who speaks with etcd, in a folder or a Secret, named as in Secrets of type kubernetes.io/tls.
const CA: &str = "ca.crt";
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";

/// etcd's user that may do everything; the administrator's certificate bears this name.
const ROOT: &str = "root";

pub(crate) async fn run(place: &Place, args: Certs) -> anyhow::Result<()> {
    match args.command {
        CertsCommand::Make(args) => make(&args),
        CertsCommand::Roles(args) => roles(place, args).await,
        CertsCommand::Secrets(args) => secrets::fill(&args).await,
    }
}

/// Makes the certificates that are not there yet.
fn make(args: &CertsMake) -> anyhow::Result<()> {
    let validity = Validity { now: SystemTime::now(), days: args.days };
    let folder = args.dir.join("ca");
    let authority = match (read(&folder.join(CA))?, read(&folder.join("ca.key"))?) {
        (Some(certificate), Some(key)) => {
            let read = Authority::read(&Certificate { certificate, key });
            read.with_context(|| format!("{} (keys are read as PKCS #8)", folder.display()))?
        }
        (None, None) => {
            let (authority, own) = Authority::new(validity)?;
            make_folder(&folder)?;
            write(&folder.join("ca.key"), &own.key)?;
            write(&folder.join(CA), &own.certificate)?;
            render::say(&format!("{}: a new authority", folder.display()))?;
            authority
        }
        _ => anyhow::bail!("{}: of ca.crt and ca.key one is missing", folder.display()),
    };
    let server = (!args.server.is_empty()).then(|| ("server", Subject::Server(args.server.clone())));
    let names = std::iter::once(ROOT).chain(args.clients.iter().map(|name| name.as_str()));
    for (name, subject) in server.into_iter().chain(names.map(|name| (name, Subject::Client(name.to_owned())))) {
        let folder = args.dir.join(name);
        if folder.join(CERTIFICATE).exists() {
            render::say(&format!("{}: is there", folder.display()))?;
            continue;
        }
        let made = authority.sign(&subject, validity).with_context(|| name.to_owned())?;
        make_folder(&folder)?;
        write(&folder.join(CA), authority.certificate())?;
        write(&folder.join(KEY), &made.key)?;
        // The certificate is written last, as it says that all the files are there.
        write(&folder.join(CERTIFICATE), &made.certificate)?;
        render::say(&format!("{}: made", folder.display()))?;
    }
    Ok(())
}

/// Tells etcd what nodes may do.
async fn roles(place: &Place, args: CertsRoles) -> anyhow::Result<()> {
    let config = datastore::etcd_config(place)?.context("no etcd is configured (MANX_ETCD_ENDPOINTS)")?;
    let etcd = store::Etcd::connect(config).await?;
    // The layout's version is written here, as no node may write it.
    store::check_schema(&etcd).await?;
    for node in &args.nodes {
        etcd.confine(node).await?;
        render::say(&format!("{node}: writes its own keys, blocks, borrowed and elected; reads all of Manx"))?;
    }
    if args.enable {
        etcd.enable_authentication().await?;
        render::say("etcd's authentication is on: a client is the user that its certificate names")?;
    }
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// Makes a folder for keys, which only its owner may read.
fn make_folder(path: &Path) -> anyhow::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(|| path.display().to_string())
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let mode = if path.extension().is_some_and(|extension| extension == "key") { 0o600 } else { 0o644 };
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(mode).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests;
