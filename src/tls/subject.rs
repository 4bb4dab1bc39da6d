//! Who a client is, by its certificate.

use x509_parser::prelude::{AttributeTypeAndValue, FromDer as _, GeneralName, X509Certificate, X509Name};

use crate::identity::key::CERTIFICATE;

/// The name of a certificate that has been verified, behind [`CERTIFICATE`]: its SPIFFE ID (X.509-SVID, 2), or else its
/// subject as OpenSSL writes it: `CN=a, O=b`. A certificate with neither names nobody, and so does one with two SPIFFE IDs.
#[must_use]
pub fn of(certificate: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let names = certificate.subject_alternative_name().ok()?;
    let mut ids = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| {
        if let GeneralName::URI(id) = name { id.starts_with("spiffe://").then_some(*id) } else { None }
    });
    let name = match (ids.next(), ids.next()) {
        (Some(id), None) => id.to_owned(),
        (None, None) if is_plain(certificate.subject()) => certificate.subject().to_string(),
        (_, Some(_)) | (None, None) => return None,
    };
    (!name.is_empty()).then(|| format!("{CERTIFICATE}{name}"))
}

/// Its text has one reading: no value looks like the end of itself and the beginning of another.
fn is_plain(name: &X509Name<'_>) -> bool {
    let mut values = name.iter_attributes().map(AttributeTypeAndValue::as_str);
    values.all(|value| value.is_ok_and(|value| !value.contains([',', '=', '+', '\\'])))
}
