//! A reader of protobuf bytes that knows nothing but the text of wire.proto: no generated code, so that vectors are
//! described independently of what encoded them. The result is protobuf's JSON mapping, except that field names stay
//! as written, bytes are hex, and only fields that are there appear. It panics on anything unexpected.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

struct Field {
    name: String,
    kind: String,
    repeated: bool,
}

/// The messages and enums of a .proto file.
pub(crate) struct Schema {
    messages: BTreeMap<String, BTreeMap<u64, Field>>,
    enums: BTreeMap<String, BTreeMap<u64, String>>,
}

impl Schema {
    /// Of spec/proto/talaria/v1/wire.proto.
    pub(crate) fn wire() -> Self {
        Self::parse(include_str!("../../../spec/proto/talaria/v1/wire.proto"))
    }

    fn parse(text: &str) -> Self {
        let mut schema = Self { messages: BTreeMap::new(), enums: BTreeMap::new() };
        let mut scopes: Vec<(String, String)> = Vec::new();
        let statements = text.lines().map(|line| line.split("//").next().unwrap_or_default().trim());
        for statement in statements.filter(|line| !line.is_empty()) {
            let words: Vec<_> = statement.trim_end_matches(['{', ';', '}']).split_whitespace().collect();
            match (&words[..], scopes.last().map(|(kind, name)| (kind.as_str(), name.clone()))) {
                (["message" | "enum" | "oneof", name], outer) => {
                    if statement.ends_with('{') {
                        let inside = match (words[0], outer) {
                            ("oneof", Some((_, message))) => ("message".into(), message),
                            _ => (words[0].to_owned(), (*name).to_owned()),
                        };
                        scopes.push(inside);
                    }
                    schema.declare(words[0], name);
                }
                ([], _) => drop(scopes.pop()),
                ([name, "=", number], Some(("enum", scope))) => {
                    let values = schema.enums.get_mut(&scope).unwrap();
                    values.insert(number.parse().unwrap(), (*name).to_owned());
                }
                ([rest @ .., kind, name, "=", number], Some(("message", scope))) => {
                    let repeated = rest.first() == Some(&"repeated");
                    let field = Field { name: (*name).to_owned(), kind: (*kind).to_owned(), repeated };
                    schema.messages.get_mut(&scope).unwrap().insert(number.parse().unwrap(), field);
                }
                _ => {}
            }
        }
        schema
    }

    /// The names of a message's fields, by number.
    #[allow(dead_code, reason = "for tests only")]
    pub(crate) fn field_names(&self, message: &str) -> impl Iterator<Item = &str> {
        self.messages[message].values().map(|field| field.name.as_str())
    }

    fn declare(&mut self, kind: &str, name: &str) {
        match kind {
            "message" => drop(self.messages.insert(name.to_owned(), BTreeMap::new())),
            "enum" => drop(self.enums.insert(name.to_owned(), BTreeMap::new())),
            _ => {}
        }
    }

    /// The message of this name in these bytes. Fields that it does not know are `unknown`.
    pub(crate) fn describe(&self, message: &str, mut bytes: &[u8]) -> Value {
        let fields = self.messages.get(message).expect("a message of wire.proto");
        let mut described = Map::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let (number, wire_type) = (key >> 3, key & 7);
            let raw = match wire_type {
                0 => Raw::Number(varint(&mut bytes)),
                1 => Raw::Number(u64::from_le_bytes(take(&mut bytes, 8).try_into().unwrap())),
                2 => {
                    let len = varint(&mut bytes) as usize;
                    Raw::Bytes(take(&mut bytes, len))
                }
                other => panic!("wire type {other}"),
            };
            let Some(field) = fields.get(&number) else {
                described.insert(format!("unknown_{number}"), raw.unknown());
                continue;
            };
            let values = self.values(&field.kind, raw);
            if field.repeated {
                let list = described.entry(field.name.clone()).or_insert(json!([]));
                list.as_array_mut().unwrap().extend(values);
            } else {
                described.insert(field.name.clone(), values.into_iter().next().unwrap());
            }
        }
        Value::Object(described)
    }

    /// One value, or several of a packed field.
    fn values(&self, kind: &str, raw: Raw<'_>) -> Vec<Value> {
        match (kind, raw) {
            ("uint64" | "fixed64", Raw::Number(number)) => vec![json!(number.to_string())],
            ("uint32", Raw::Number(number)) => vec![json!(number)],
            ("bool", Raw::Number(number)) => vec![json!(number != 0)],
            ("string", Raw::Bytes(bytes)) => vec![json!(std::str::from_utf8(bytes).expect("UTF-8"))],
            ("bytes", Raw::Bytes(bytes)) => vec![json!(hex(bytes))],
            ("uint32", Raw::Bytes(mut packed)) => {
                std::iter::from_fn(|| (!packed.is_empty()).then(|| json!(varint(&mut packed)))).collect()
            }
            (message, Raw::Bytes(bytes)) => vec![self.describe(message, bytes)],
            (name, Raw::Number(number)) => {
                let known = self.enums.get(name).expect("an enum of wire.proto").get(&number);
                vec![known.map_or_else(|| json!(number), |name| json!(name))]
            }
        }
    }
}

enum Raw<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl Raw<'_> {
    fn unknown(&self) -> Value {
        match self {
            Self::Number(number) => json!(number.to_string()),
            Self::Bytes(bytes) => json!(hex(bytes)),
        }
    }
}

fn take<'a>(bytes: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(len);
    *bytes = rest;
    taken
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return value;
        }
    }
    panic!("a varint of more than ten bytes")
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of lower-case hexadecimal.
pub(crate) fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "half a byte");
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
}
