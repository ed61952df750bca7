//! A JSON object's fields, read as what they must be; what is not so is refused by name.

use std::ops::RangeInclusive;

use axum::http::StatusCode;
use serde_json::{Map, Value};

use super::fault::Fault;

/// A token, and what is added to its logit; none where it is banned.
pub type Bias = (u32, Option<f32>);

/// An object of a request.
pub struct Fields<'a> {
    /// Prefix of the fields' names in messages.
    prefix: &'static str,
    object: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// The fields of a request's body.
    pub fn of(body: &'a Value) -> Result<Fields<'a>, Fault> {
        let object = body.as_object();
        let object = object.ok_or_else(|| Fault::new(StatusCode::BAD_REQUEST, "the body is no JSON object"))?;
        Ok(Fields { prefix: "", object })
    }

    /// The field `name`, unless it is absent or null.
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }

    fn wrong(&self, name: &str, what: impl std::fmt::Display) -> Fault {
        Fault::parameter(&format!("{}{name}", self.prefix), what)
    }

    /// The object `name`, whose fields are called `prefix` and their own name in messages.
    pub fn object(&self, name: &str, prefix: &'static str) -> Result<Option<Fields<'a>>, Fault> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let object = value.as_object().ok_or_else(|| self.wrong(name, "it is no object"))?;
        Ok(Some(Fields { prefix, object }))
    }

    pub fn list(&self, name: &str) -> Result<Option<&'a [Value]>, Fault> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let list = value.as_array().ok_or_else(|| self.wrong(name, "it is no list"))?;
        Ok(Some(list))
    }

    pub fn text(&self, name: &str) -> Result<Option<&'a str>, Fault> {
        let Some(value) = self.get(name) else { return Ok(None) };
        Ok(Some(value.as_str().ok_or_else(|| self.wrong(name, "it is no text"))?))
    }

    pub fn boolean(&self, name: &str) -> Result<Option<bool>, Fault> {
        let Some(value) = self.get(name) else { return Ok(None) };
        Ok(Some(value.as_bool().ok_or_else(|| self.wrong(name, "it is neither true nor false"))?))
    }

    /// A number. Its range is for the engine to check.
    pub fn number(&self, name: &str) -> Result<Option<f32>, Fault> {
        let Some(value) = self.get(name) else { return Ok(None) };
        Ok(Some(value.as_f64().ok_or_else(|| self.wrong(name, "it is no number"))? as f32))
    }

    /// A whole number of `range`.
    pub fn count(&self, name: &str, range: RangeInclusive<usize>) -> Result<Option<usize>, Fault> {
        let Some(value) = self.get(name) else { return Ok(None) };
        // Some clients write whole numbers with a point.
        let whole = value.as_f64().filter(|number| number.fract() == 0.0 && (0.0..9e15).contains(number));
        let count = value.as_u64().or_else(|| whole.map(|number| number as u64));
        let count = count.and_then(|count| usize::try_from(count).ok()).filter(|count| range.contains(count));
        let wrong = || {
            let (least, most) = (range.start(), range.end());
            let bounds =
                if *most == usize::MAX { format!("from {least} on") } else { format!("from {least} to {most}") };
            self.wrong(name, format!("it is no whole number {bounds}"))
        };
        count.map(Some).ok_or_else(wrong)
    }

    /// Any whole number; a negative one is taken for the bits that stand for it, but -1 is none, as in llama.cpp.
    pub fn seed(&self, name: &str) -> Result<Option<u64>, Fault> {
        let Some(value) = self.get(name).filter(|value| value.as_f64() != Some(-1.0)) else { return Ok(None) };
        // Some clients write whole numbers with a point.
        let float = value.as_f64().filter(|seed| seed.fract() == 0.0 && seed.abs() < 9e15).map(|seed| seed as i64);
        let seed = value.as_u64().or_else(|| value.as_i64().or(float).map(|seed| seed as u64));
        seed.map(Some).ok_or_else(|| self.wrong(name, "it is no whole number of 64 bits"))
    }

    /// Tokens and what is added to their logits; none for one that is banned, as llama.cpp writes it. Its lists of pairs are
    /// taken as well as OpenAI's objects.
    pub fn biases(&self, name: &str) -> Result<Option<Vec<Bias>>, Fault> {
        let bias = |key: &str, bias: &Value| {
            let wrong = |what: &str| self.wrong(name, format!("{key}: {what}"));
            let id = key.parse().map_err(|_| wrong("it is no token's number"))?;
            match bias {
                Value::Bool(false) => Ok((id, None)),
                bias => Ok((id, Some(bias.as_f64().ok_or_else(|| wrong("its bias is no number"))? as f32))),
            }
        };
        let pair = |pair: &Value| match pair.as_array().map(Vec::as_slice) {
            Some([id, value]) => bias(id.as_str().unwrap_or(&id.to_string()), value),
            _ => Err(self.wrong(name, format!("{pair} is no pair of a token and its bias"))),
        };
        match self.get(name) {
            None => Ok(None),
            Some(Value::Array(pairs)) => pairs.iter().map(pair).collect::<Result<_, Fault>>().map(Some),
            Some(Value::Object(biases)) => {
                biases.iter().map(|(key, value)| bias(key, value)).collect::<Result<_, Fault>>().map(Some)
            }
            Some(_) => Err(self.wrong(name, "it is neither an object nor a list of pairs")),
        }
    }

    /// One text, or a list of at most `most`.
    pub fn texts(&self, name: &str, most: usize) -> Result<Option<Vec<String>>, Fault> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let wrong = || self.wrong(name, format!("it is neither a text nor a list of at most {most}"));
        let texts = match value {
            Value::String(text) => vec![text.clone()],
            Value::Array(list) if list.len() <= most => {
                let text = |value: &Value| value.as_str().map(str::to_owned);
                list.iter().map(text).collect::<Option<Vec<_>>>().ok_or_else(wrong)?
            }
            _ => return Err(wrong()),
        };
        Ok(Some(texts))
    }

    /// Refuses the field if it is there and not one of `allowed`. Numbers may be written with a point or without.
    pub fn refuse_unless(&self, name: &str, allowed: &[Value], reason: &str) -> Result<(), Fault> {
        let is_same = |value: &Value, other: &Value| {
            value == other || (value.is_number() && other.is_number() && value.as_f64() == other.as_f64())
        };
        match self.get(name) {
            Some(value) if !allowed.iter().any(|allowed| is_same(value, allowed)) => Err(self.wrong(name, reason)),
            _ => Ok(()),
        }
    }
}
