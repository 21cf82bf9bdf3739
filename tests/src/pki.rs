//! Certificates of any shape: a private CA, intermediates, servers; expired, for other names, weak.

use openssl::asn1::{Asn1Integer, Asn1Time};
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName,
    SubjectKeyIdentifier,
};
use openssl::x509::{X509, X509Builder, X509Name, X509NameBuilder};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

const DAY_S: i64 = 86_400;

/// The kind of key.
#[derive(Debug, Clone, Copy)]
pub enum Key {
    /// P-256.
    Ec,
    /// With so many bits.
    Rsa(u32),
}

/// What a certificate says.
#[derive(Debug, Clone, Copy)]
pub struct Spec<'a> {
    /// The common name; none when empty.
    pub common_name: &'a str,
    /// DNS names.
    pub dns: &'a [&'a str],
    /// Addresses.
    pub ips: &'a [&'a str],
    /// Begins so many days from now.
    pub from_days: i64,
    /// Ends so many days from now.
    pub until_days: i64,
    /// The kind of key.
    pub key: Key,
    /// Whether it may sign others.
    pub ca: bool,
    /// For clients, not for servers.
    pub for_clients: bool,
}

impl Default for Spec<'_> {
    fn default() -> Self {
        Self {
            common_name: "server",
            dns: &[],
            ips: &[],
            from_days: -1,
            until_days: 30,
            key: Key::Ec,
            ca: false,
            for_clients: false,
        }
    }
}

impl<'a> Spec<'a> {
    /// A CA of this name.
    pub fn authority(common_name: &'a str) -> Self {
        Self { common_name, ca: true, ..Self::default() }
    }

    /// A server with this DNS name.
    pub fn server(dns: &'a [&'a str]) -> Self {
        Self { dns, ..Self::default() }
    }
}

/// A certificate with its key and the certificates between it and the root.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate: X509,
    /// Its key.
    pub key: PKey<Private>,
    /// Its issuer, the issuer's issuer, …, without the root.
    pub intermediates: Vec<X509>,
}

/// An identity in files, as servers want it.
#[derive(Debug, Clone)]
pub struct Files {
    /// The certificate, PEM.
    pub certificate: PathBuf,
    /// The key, PEM.
    pub key: PathBuf,
    /// The intermediates, PEM; perhaps empty.
    pub chain: PathBuf,
}

impl Identity {
    /// Signed by itself.
    pub fn self_signed(spec: &Spec<'_>) -> Self {
        let key = new_key(spec.key);
        let certificate = build(spec, &key, None);
        Self { certificate, key, intermediates: Vec::new() }
    }

    /// Signed by this one.
    #[must_use]
    pub fn issue(&self, spec: &Spec<'_>) -> Self {
        let key = new_key(spec.key);
        let certificate = build(spec, &key, Some(self));
        let mut intermediates = Vec::new();
        if self.certificate.subject_name_hash() != self.certificate.issuer_name_hash() {
            intermediates.push(self.certificate.clone());
            intermediates.extend(self.intermediates.iter().cloned());
        }
        Self { certificate, key, intermediates }
    }

    /// The certificate in DER.
    pub fn der(&self) -> Vec<u8> {
        self.certificate.to_der().unwrap()
    }

    /// The certificate in PEM.
    pub fn pem(&self) -> Vec<u8> {
        self.certificate.to_pem().unwrap()
    }

    /// Writes it for a server.
    pub fn write(&self, dir: &Path, name: &str) -> Files {
        let path = |end: &str| dir.join(format!("{name}.{end}"));
        let files = Files { certificate: path("crt"), key: path("key"), chain: path("chain") };
        fs::write(&files.certificate, self.pem()).unwrap();
        fs::write(&files.key, self.key.private_key_to_pem_pkcs8().unwrap()).unwrap();
        let chain: Vec<u8> = self.intermediates.iter().flat_map(|c| c.to_pem().unwrap()).collect();
        fs::write(&files.chain, chain).unwrap();
        files
    }
}

fn new_key(kind: Key) -> PKey<Private> {
    match kind {
        Key::Rsa(bits) => PKey::from_rsa(Rsa::generate(bits).unwrap()).unwrap(),
        Key::Ec => {
            let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
            PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
        }
    }
}

fn name(common_name: &str) -> X509Name {
    let mut name = X509NameBuilder::new().unwrap();
    name.append_entry_by_nid(Nid::ORGANIZATIONNAME, "v2v-pod tests").unwrap();
    if !common_name.is_empty() {
        name.append_entry_by_nid(Nid::COMMONNAME, common_name).unwrap();
    }
    name.build()
}

fn in_days(days: i64) -> Asn1Time {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    Asn1Time::from_unix(i64::try_from(now).unwrap() + days * DAY_S).unwrap()
}

fn build(spec: &Spec<'_>, key: &PKey<Private>, issuer: Option<&Identity>) -> X509 {
    let subject = name(spec.common_name);
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    let mut serial = BigNum::new().unwrap();
    serial.rand(127, MsbOption::MAYBE_ZERO, false).unwrap();
    builder.set_serial_number(&Asn1Integer::from_bn(&serial).unwrap()).unwrap();
    builder.set_subject_name(&subject).unwrap();
    builder.set_issuer_name(issuer.map_or(&subject, |i| i.certificate.subject_name())).unwrap();
    builder.set_pubkey(key).unwrap();
    builder.set_not_before(&in_days(spec.from_days)).unwrap();
    builder.set_not_after(&in_days(spec.until_days)).unwrap();
    extend(&mut builder, spec, issuer);
    builder.sign(issuer.map_or(key, |i| &i.key), MessageDigest::sha256()).unwrap();
    builder.build()
}

fn extend(builder: &mut X509Builder, spec: &Spec<'_>, issuer: Option<&Identity>) {
    let authority = issuer.map(|i| i.certificate.as_ref());
    let id = SubjectKeyIdentifier::new().build(&builder.x509v3_context(authority, None)).unwrap();
    builder.append_extension(id).unwrap();
    if issuer.is_some() {
        let context = builder.x509v3_context(authority, None);
        let id = AuthorityKeyIdentifier::new().keyid(true).build(&context).unwrap();
        builder.append_extension(id).unwrap();
    }
    if spec.ca {
        builder.append_extension(BasicConstraints::new().critical().ca().build().unwrap()).unwrap();
        let usage = KeyUsage::new().critical().key_cert_sign().crl_sign().build().unwrap();
        builder.append_extension(usage).unwrap();
        return;
    }
    let mut usage = ExtendedKeyUsage::new();
    if spec.for_clients {
        usage.client_auth()
    } else {
        usage.server_auth()
    };
    builder.append_extension(usage.build().unwrap()).unwrap();
    if spec.dns.is_empty() && spec.ips.is_empty() {
        return;
    }
    let mut names = SubjectAlternativeName::new();
    for dns in spec.dns {
        names.dns(dns);
    }
    for ip in spec.ips {
        names.ip(ip);
    }
    let names = names.build(&builder.x509v3_context(authority, None)).unwrap();
    builder.append_extension(names).unwrap();
}
