//! Who is who in a cluster: one authority, and a certificate for each component, as Kubernetes' documentation has it
//! ("PKI certificates and requirements").

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use serde_json::json;

use crate::LabError;

/// A certificate authority, made for one cluster.
#[derive(Debug)]
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key, both as PEM.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Identity {
    /// Writes certificate and key as `NAME.crt` and `NAME.key`.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> Result<(), LabError> {
        write(&folder.join(format!("{name}.crt")), &self.certificate)?;
        write(&folder.join(format!("{name}.key")), &self.key)
    }
}

impl Authority {
    pub(crate) fn new(name: &str) -> Result<Self, LabError> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().map_err(failed(name))?;
        CertifiedIssuer::self_signed(params, key).map(Self).map_err(failed(name))
    }

    /// The authority's own certificate and key.
    pub(crate) fn identity(&self) -> Identity {
        Identity { certificate: self.0.pem(), key: self.0.key().serialize_pem() }
    }

    /// A certificate for a user, who may also serve under the given names and addresses.
    pub(crate) fn issue(
        &self,
        user: &str,
        group: Option<&str>,
        names: &[&str],
        addresses: &[IpAddr],
    ) -> Result<Identity, LabError> {
        let names = names.iter().map(|name| (*name).to_owned()).chain(addresses.iter().map(ToString::to_string));
        let mut params = CertificateParams::new(names.collect::<Vec<_>>()).map_err(failed(user))?;
        params.distinguished_name = DistinguishedName::new();
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.distinguished_name.push(DnType::CommonName, user);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().map_err(failed(user))?;
        let certificate = params.signed_by(&key, &self.0).map_err(failed(user))?;
        Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

/// The key pair that service accounts' tokens are signed with: the private key, then the public one.
pub(crate) fn signing_keys() -> Result<(String, String), LabError> {
    let key = KeyPair::generate().map_err(failed("service accounts"))?;
    Ok((key.serialize_pem(), key.public_key_pem()))
}

/// Writes what a component needs to be known by the API server into a folder, all of it under one name, with the
/// authority's certificate beside it. Returns the path of the component's kubeconfig.
pub(crate) fn introduce(
    folder: &Path,
    name: &str,
    server: &str,
    authority: &Authority,
    identity: &Identity,
) -> Result<PathBuf, LabError> {
    // A kubeconfig is YAML, and JSON is YAML. Paths in it are relative to where it lies.
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "lab", "cluster": { "server": server, "certificate-authority": "ca.crt" } }],
        "users": [{ "name": name, "user": {
            "client-certificate": format!("{name}.crt"), "client-key": format!("{name}.key"),
        }}],
        "contexts": [{ "name": "lab", "context": { "cluster": "lab", "user": name } }],
        "current-context": "lab",
    });
    write(&folder.join("ca.crt"), &authority.identity().certificate)?;
    identity.write(folder, name)?;
    let path = folder.join(format!("{name}.kubeconfig"));
    write(&path, &kubeconfig.to_string())?;
    Ok(path)
}

/// Writes a file, and the folder that it is in.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), LabError> {
    let folder = path.parent().unwrap_or_else(|| Path::new("/"));
    fs::create_dir_all(folder).and_then(|()| fs::write(path, text)).map_err(LabError::io(path.display().to_string()))
}

fn failed(of: &str) -> impl FnOnce(rcgen::Error) -> LabError {
    let doing = format!("making the certificate of {of}");
    move |error| LabError::Io { doing, source: std::io::Error::other(error) }
}
