//! What a caller is known by: the API key that a request carries, or the certificate of its connection.
//!
//! TelAPI's documentation asks for `Authorization: Bearer`; its own SDK sends `X-API-Key`. Both are read,
//! and a request that says two different things is refused rather than guessed at.

use super::call::Call;
use super::denial::Denial;
use super::{Policy, usable};
use crate::config::route::Proof;
use crate::identity::caller::Caller;
use crate::identity::made;
use crate::keys::KeySource;
use crate::keys::presented::Presented;
use crate::message::field::Kind;
use crate::message::fields::Fields;

/// Who makes a call, by what this proof asks for.
pub(super) async fn caller(
    policy: &Policy,
    proof: Proof,
    keys: &impl KeySource,
    call: &Call<'_>,
) -> Result<Caller, Denial> {
    let presented = match proof {
        Proof::Key => presented(policy, call)?,
        Proof::Certificate => certificate(policy, call)?,
        // In a box of its own: others need no room for it.
        Proof::Both => return Box::pin(both(policy, keys, call)).await,
    };
    let found = keys.find(&presented).await?;
    if proof == Proof::Certificate && found.is_none() {
        return Err(Denial::CertificateUnknown);
    }
    usable(found, call.now)
}

/// The holder of a key, over a connection of somebody who is known, may come in, and is of the same team: who has taken a
/// key away from there cannot use it with a certificate of his own.
async fn both(policy: &Policy, keys: &impl KeySource, call: &Call<'_>) -> Result<Caller, Denial> {
    let certificate = certificate(policy, call)?;
    let caller = usable(keys.find(&presented(policy, call)?).await?, call.now)?;
    let found = keys.find_beside(&certificate).await?;
    let beside = usable(Some(found.ok_or(Denial::CertificateUnknown)?), call.now)?;
    if beside.team() != caller.team() {
        return Err(Denial::CertificateForeign { caller, team: beside.team().into() });
    }
    Ok(caller)
}

/// What a key and a certificate that were shown together have to be when either is looked at again.
#[derive(Debug)]
pub struct Together {
    /// Of this team.
    pub team: Box<str>,
    /// It is the certificate, which needs no scopes of its own.
    pub beside: bool,
}

impl Together {
    /// False where scopes are asked for besides.
    pub(super) fn is_enough(&self, caller: &Caller) -> Result<bool, Denial> {
        if *self.team == *caller.team() {
            return Ok(self.beside);
        }
        Err(Denial::CertificateForeign { caller: caller.clone(), team: self.team.clone() })
    }
}

/// The certificate of a call's connection.
fn certificate<'a>(policy: &Policy, call: &Call<'_>) -> Result<Presented<'a>, Denial> {
    let shown = call.certificate.ok_or(Denial::CertificateMissing)?;
    let name = shown.as_deref().ok_or(Denial::CertificateUnknown)?;
    Ok(Presented::before(policy.hashing.digest(name.as_bytes())))
}

/// The key of a call.
fn presented<'a>(policy: &Policy, call: &Call<'a>) -> Result<Presented<'a>, Denial> {
    let key = find(call.fields)?;
    if policy.key_prefix.as_deref().is_some_and(|prefix| !made::may_be_whole(prefix, key)) {
        return Err(Denial::KeyMalformed);
    }
    Ok(Presented { key: Some(key), ..Presented::before(policy.hashing.digest(key)) })
}

/// The key of a request, as bytes of its head.
pub fn find(fields: &Fields) -> Result<&[u8], Denial> {
    let bearer = match only(fields, Kind::Authorization)? {
        Some(value) => bearer(value)?,
        None => None,
    };
    let api_key = only(fields, Kind::ApiKey)?.map(token).transpose()?;
    match (bearer, api_key) {
        (Some(one), Some(other)) if one != other => Err(Denial::KeyConflict),
        (Some(key), _) | (None, Some(key)) => Ok(key),
        (None, None) => Err(Denial::KeyMissing),
    }
}

/// The value of a field that may stand once.
fn only(fields: &Fields, kind: Kind) -> Result<Option<&[u8]>, Denial> {
    let mut values = fields.all(kind);
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(Denial::KeyRepeated),
        (first, None) => Ok(first),
    }
}

/// What stands behind `Bearer`, in any case, and blanks (RFC 9110, 11.4). Another scheme is not ours to read, but with
/// another space this one is to some.
fn bearer(value: &[u8]) -> Result<Option<&[u8]>, Denial> {
    of_bearer(value).map(|rest| token(without_blanks(rest))).transpose()
}

/// Whether a value of `Authorization` is of the scheme that keys are shown in.
#[must_use]
pub fn is_bearer(value: &[u8]) -> bool {
    of_bearer(value).is_some()
}

fn of_bearer(value: &[u8]) -> Option<&[u8]> {
    let end = value.iter().position(u8::is_ascii_whitespace).unwrap_or(value.len());
    let (scheme, rest) = value.split_at(end);
    scheme.eq_ignore_ascii_case(b"bearer").then_some(rest)
}

fn without_blanks(value: &[u8]) -> &[u8] {
    let blanks = value.iter().take_while(|byte| **byte == b' ').count();
    value.get(blanks..).unwrap_or_default()
}

/// A key is opaque, but it is one word of visible characters.
fn token(value: &[u8]) -> Result<&[u8], Denial> {
    // Without a way out in the middle, so that many bytes are looked at at once.
    if value.is_empty() || !value.iter().fold(true, |good, byte| good & byte.is_ascii_graphic()) {
        return Err(Denial::KeyMalformed);
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_header_and_never_two_answers() {
        let check = |lines: &[(&str, &str)], wanted: Result<&str, Denial>| {
            let mut fields = Fields::default();
            for (name, value) in lines {
                fields.push(name.as_bytes(), value.as_bytes().trim_ascii());
            }
            assert_eq!(find(&fields), wanted.map(str::as_bytes), "{lines:?}");
        };
        check(&[], Err(Denial::KeyMissing));
        check(&[("authorization", "Bearer k1")], Ok("k1"));
        check(&[("authorization", "  bEaReR   k1  ")], Ok("k1"));
        check(&[("authorization", "Bearer\tk1")], Err(Denial::KeyMalformed));
        check(&[("authorization", "Bearer \t k1")], Err(Denial::KeyMalformed));
        check(&[("x-api-key", " k1 ")], Ok("k1"));
        check(&[("authorization", "Bearer k1"), ("x-api-key", "k1")], Ok("k1"));
        check(&[("authorization", "Bearer k1"), ("x-api-key", "k2")], Err(Denial::KeyConflict));
        check(&[("authorization", "Basic dTpw"), ("x-api-key", "k1")], Ok("k1"));
        check(&[("authorization", "Basic dTpw")], Err(Denial::KeyMissing));
        check(&[("authorization", "k1")], Err(Denial::KeyMissing));
        check(&[("authorization", "Bearer")], Err(Denial::KeyMalformed));
        check(&[("authorization", "Bearer  ")], Err(Denial::KeyMalformed));
        check(&[("authorization", "Bearer k1 k2")], Err(Denial::KeyMalformed));
        check(&[("authorization", "Bearer ké")], Err(Denial::KeyMalformed));
        check(&[("authorization", "Bearer"), ("x-api-key", "k1")], Err(Denial::KeyMalformed));
        check(&[("x-api-key", "")], Err(Denial::KeyMalformed));
        check(&[("x-api-key", "k1"), ("x-api-key", "k1")], Err(Denial::KeyRepeated));
        check(&[("authorization", "Bearer k1"), ("authorization", "Basic x")], Err(Denial::KeyRepeated));
    }
}
