//! Certificates for etcd: an authority, and what it signs.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};

/// What every authority is called; they differ by their keys.
const AUTHORITY: &str = "Manx etcd CA";

/// How far a node's clock may be behind the clock of the machine that signs.
const CLOCKS_DIFFER: Duration = Duration::from_secs(24 * 3_600);

/// The time in which certificates are valid.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Validity {
    pub(crate) now: SystemTime,
    pub(crate) days: u32,
}

/// A certificate and its key, as PEM.
#[derive(Debug, Clone)]
pub(crate) struct Certificate {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// The holder of a certificate.
#[derive(Debug, Clone)]
pub(crate) enum Subject {
    /// etcd itself, at these names and addresses.
    Server(Vec<String>),
    /// A client of etcd: where etcd's authentication is on, the name is etcd's user.
    Client(String),
}

/// An authority, which signs certificates.
pub(crate) struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes a new authority; gives with it its certificate and key, for who wants to keep them.
    pub(crate) fn new(validity: Validity) -> Result<(Self, Certificate), rcgen::Error> {
        let mut params = validity.of(CertificateParams::default());
        params.distinguished_name.push(DnType::CommonName, AUTHORITY);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let own = Certificate { certificate: params.self_signed(&key)?.pem(), key: key.serialize_pem() };
        let issuer = Issuer::new(params, key);
        Ok((Self { certificate: own.certificate.clone(), issuer }, own))
    }

    /// Reads an authority that was made before, here or elsewhere.
    pub(crate) fn read(own: &Certificate) -> Result<Self, rcgen::Error> {
        let issuer = Issuer::from_ca_cert_pem(&own.certificate, KeyPair::from_pem(&own.key)?)?;
        Ok(Self { certificate: own.certificate.clone(), issuer })
    }

    /// Its own certificate, by which those that it signs are checked.
    pub(crate) fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Signs a certificate for somebody, with a new key.
    pub(crate) fn sign(&self, subject: &Subject, validity: Validity) -> Result<Certificate, rcgen::Error> {
        let mut params = validity.of(CertificateParams::default());
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        match subject {
            Subject::Server(places) => {
                // It has no common name, or etcd's requests to itself would be taken for a user of that name.
                let places = places.iter().map(|place| match place.parse::<IpAddr>() {
                    Ok(address) => Ok(SanType::IpAddress(address)),
                    Err(_) => place.as_str().try_into().map(SanType::DnsName),
                });
                params.subject_alt_names = places.collect::<Result<_, _>>()?;
                // etcd also uses it as a client, for its requests to itself.
                params.extended_key_usages =
                    vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            }
            Subject::Client(name) => {
                params.distinguished_name.push(DnType::CommonName, name.as_str());
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            }
        }
        let key = KeyPair::generate()?;
        Ok(Certificate { certificate: params.signed_by(&key, &self.issuer)?.pem(), key: key.serialize_pem() })
    }
}

impl Validity {
    fn of(self, mut params: CertificateParams) -> CertificateParams {
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.not_before = (self.now - CLOCKS_DIFFER).into();
        params.not_after = (self.now + Duration::from_secs(u64::from(self.days) * 24 * 3_600)).into();
        params
    }
}
