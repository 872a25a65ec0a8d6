//! A tree as the source of a serde reader, so that the reader of the modules reads YAML as well.

use serde::de::value::{Error, MapDeserializer, SeqDeserializer, StrDeserializer};
use serde::de::{IntoDeserializer, Visitor};
use serde::{Deserializer, forward_to_deserialize_any};

use super::{Node, Scalar, Value};

impl<'de> Deserializer<'de> for &Node {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.value {
            Value::Scalar(Scalar::Null) => visitor.visit_unit(),
            Value::Scalar(Scalar::Bool(value)) => visitor.visit_bool(*value),
            Value::Scalar(Scalar::Unsigned(value)) => visitor.visit_u64(*value),
            Value::Scalar(Scalar::Negative(value)) => visitor.visit_i64(*value),
            Value::Scalar(Scalar::Float(value)) => visitor.visit_f64(*value),
            Value::Scalar(Scalar::Text(value)) => visitor.visit_str(value),
            Value::List(items) => {
                visitor.visit_seq(SeqDeserializer::new(items.iter().map(|item| &item.node)))
            }
            Value::Map(entries) => {
                let pairs = entries.iter().map(|entry| (Key(&entry.key), &entry.node));
                visitor.visit_map(MapDeserializer::new(pairs))
            }
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, Error> for &Node {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

struct Key<'k>(&'k str);

impl<'de, 'k> IntoDeserializer<'de, Error> for Key<'k> {
    type Deserializer = StrDeserializer<'k, Error>;
    fn into_deserializer(self) -> Self::Deserializer {
        self.0.into_deserializer()
    }
}
