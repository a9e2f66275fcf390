//! Certificates for etcd: an authority, and what it signs.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};

/// What the authority is called. A file of it says which one it is: by its key.
const AUTHORITY: &str = "Manx etcd CA";

/// A node's clock may be behind the one that signs.
const CLOCKS_DIFFER: Duration = Duration::from_secs(24 * 3_600);

/// For how long certificates are good.
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

/// Who a certificate is for.
#[derive(Debug, Clone)]
pub(crate) enum Subject {
    /// etcd itself, at these names and addresses.
    Server(Vec<String>),
    /// Whoever asks etcd: the name is etcd's user, where etcd's authentication is on.
    Client(String),
}

/// Who signs.
pub(crate) struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new one; with its certificate and key, to be kept or not.
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

    /// One that was made before, here or elsewhere.
    pub(crate) fn read(own: &Certificate) -> Result<Self, rcgen::Error> {
        let issuer = Issuer::from_ca_cert_pem(&own.certificate, KeyPair::from_pem(&own.key)?)?;
        Ok(Self { certificate: own.certificate.clone(), issuer })
    }

    /// Its certificate, by which the others are checked.
    pub(crate) fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A certificate for somebody, with a new key.
    pub(crate) fn sign(&self, subject: &Subject, validity: Validity) -> Result<Certificate, rcgen::Error> {
        let mut params = validity.of(CertificateParams::default());
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        match subject {
            Subject::Server(places) => {
                // Without a common name: etcd's own requests to itself would be taken for a user of that name.
                let places = places.iter().map(|place| match place.parse::<IpAddr>() {
                    Ok(address) => Ok(SanType::IpAddress(address)),
                    Err(_) => place.as_str().try_into().map(SanType::DnsName),
                });
                params.subject_alt_names = places.collect::<Result<_, _>>()?;
                // etcd is its own client, too.
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
