//! A head as httparse reads it, and its fields as plain pairs.

use scopegate::message::fields::Fields;

/// Names in lower case, and values.
pub type Pairs = Vec<(String, Vec<u8>)>;

pub fn pairs(fields: &Fields) -> Pairs {
    fields.iter().map(|field| pair(field.name, field.value)).collect()
}

pub fn parsed(headers: &[httparse::Header<'_>]) -> Pairs {
    headers.iter().map(|field| pair(field.name.as_bytes(), field.value)).collect()
}

fn pair(name: &[u8], value: &[u8]) -> (String, Vec<u8>) {
    (String::from_utf8_lossy(name).to_ascii_lowercase(), value.to_vec())
}

pub fn all<'p>(pairs: &'p Pairs, name: &str) -> Vec<&'p [u8]> {
    pairs.iter().filter(|(known, _)| known == name).map(|(_, value)| &**value).collect()
}

/// What a message lists in `Connection`, but what every message needs.
pub fn nominated(pairs: &Pairs) -> Vec<String> {
    let values = all(pairs, "connection").into_iter().map(String::from_utf8_lossy);
    let words: Vec<_> = values
        .flat_map(|value| value.split(',').map(|word| word.trim().to_lowercase()).collect::<Vec<_>>())
        .collect();
    let needed = ["close", "keep-alive", "host", "content-length", "trailer", "sec-websocket-version"];
    words.into_iter().filter(|word| !needed.contains(&&**word)).collect()
}

/// Every name and value is one that a field may have (RFC 9110, 5.1 and 5.5).
pub fn are_fields(pairs: &Pairs) {
    for (name, value) in pairs {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        assert!(!name.is_empty() && name.bytes().all(good), "the name {name:?}");
        let good = |byte: &u8| *byte == b'\t' || *byte >= b' ' && *byte != 0x7f;
        assert!(value.iter().all(good), "the value {:?}", value.escape_ascii().to_string());
        assert_eq!(value.trim_ascii(), value, "blanks around the value of {name}");
    }
}
