//! Python's operators where minijinja has others; [`super::jinja_source`] puts them into templates.

use std::sync::Arc;

use minijinja::value::{Enumerator, Kwargs, Object, Rest, Tuple, Value, ValueKind, from_args};
use minijinja::{Environment, Error, State};

use super::jinja_source::{COMPARE, ITERABLE, PERCENT, SLICEABLE, SURPLUS, VARIADIC};
use super::printf::{Values, printf};
use super::python::{self, wrong};

/// Adds the functions that translated templates call.
pub(super) fn install(environment: &mut Environment) {
    environment.add_function(COMPARE, compare);
    environment.add_function(PERCENT, percent);
    environment.add_filter("format", |state: &State, text: &Value, listed: Rest<Value>, named: Kwargs| {
        let text = python::text(state, text)?.to_string();
        let named: Vec<(&str, Value)> =
            named.args().map(|name| Ok((name, named.get(name)?))).collect::<Result<_, Error>>()?;
        match (&listed[..], &named[..]) {
            (listed, []) => printf(state, &text, &Values::Listed(listed)),
            ([], named) => printf(state, &text, &Values::Named(&Value::from_pairs(named.to_vec()))),
            _ => Err(wrong("format takes values in order or by name".to_owned())),
        }
    });
    environment.add_function(ITERABLE, iterable);
    environment.add_function(SLICEABLE, sliceable);
    environment.add_function(VARIADIC, variadic);
}

/// A chain of comparisons: values, and the operators between them.
fn compare(state: &mut State, parts: Rest<Value>) -> Result<bool, Error> {
    let incomplete = || wrong("a comparison lacks an operand".to_owned());
    let (mut left, others) = parts.split_first().ok_or_else(incomplete)?;
    for pair in others.chunks(2) {
        let [operator, right] = pair else { return Err(incomplete()) };
        let holds = match operator.as_str().unwrap_or_default() {
            "==" => left == right,
            "!=" => left != right,
            "in" => contains(state, right, left)?,
            "not in" => !contains(state, right, left)?,
            operator => {
                check_order(state, operator, left, right)?;
                match operator {
                    "<" => left < right,
                    "<=" => left <= right,
                    ">" => left > right,
                    _ => left >= right,
                }
            }
        };
        if !holds {
            return Ok(false);
        }
        left = right;
    }
    Ok(true)
}

fn contains(state: &mut State, values: &Value, value: &Value) -> Result<bool, Error> {
    if values.kind() == ValueKind::String && value.kind() != ValueKind::String {
        return Err(wrong(format!("{} is looked for in a string", value.kind())));
    }
    check_iterable(values)?;
    state.perform_test("in", &[value.clone(), values.clone()])
}

/// Checks that Python orders two values: numbers, texts, and lists of such.
fn check_order(state: &State, operator: &str, left: &Value, right: &Value) -> Result<(), Error> {
    let is_number = |value: &Value| matches!(value.kind(), ValueKind::Number | ValueKind::Bool);
    match (left.kind(), right.kind()) {
        _ if is_number(left) && is_number(right) => Ok(()),
        (ValueKind::String, ValueKind::String) => Ok(()),
        (ValueKind::Seq, ValueKind::Seq) => {
            for (left, right) in left.try_iter()?.zip(right.try_iter()?) {
                state.consume_fuel(1)?;
                if left != right {
                    return check_order(state, operator, &left, &right);
                }
            }
            Ok(())
        }
        (one, other) => Err(wrong(format!("{operator} does not compare {one} with {other}"))),
    }
}

/// The remainder, whose sign is the divisor's; of a text, what its formats make of the value, a tuple or a map.
fn percent(state: &State, left: Value, right: Value) -> Result<Value, Error> {
    if let Some(text) = left.as_str() {
        let values: Vec<Value>;
        let values = match right.kind() {
            _ if right.downcast_object_ref::<Tuple>().is_some() => {
                values = right.try_iter()?.collect();
                Values::Listed(&values)
            }
            ValueKind::Map if text.contains("%(") => Values::Named(&right),
            ValueKind::Map | ValueKind::Seq => Values::Optional(&right),
            _ => Values::Listed(std::slice::from_ref(&right)),
        };
        return printf(state, text, &values).map(Value::from);
    }
    let unsupported = || wrong(format!("% does not divide {} by {}", left.kind(), right.kind()));
    let number = |value: &Value| match value.kind() {
        ValueKind::Bool => Some(Value::from(i64::from(value.is_true()))),
        ValueKind::Number => Some(value.clone()),
        _ => None,
    };
    let (one, other) = (number(&left).ok_or_else(unsupported)?, number(&right).ok_or_else(unsupported)?);
    let by_zero = || wrong("a division by zero".to_owned());
    if one.is_integer() && other.is_integer() {
        let (one, other) = (i128::try_from(one)?, i128::try_from(other)?);
        let remainder = one.checked_rem(other).ok_or_else(by_zero)?;
        let is_opposite = remainder != 0 && (remainder < 0) != (other < 0);
        return Ok(Value::from(if is_opposite { remainder + other } else { remainder }));
    }
    let (one, other) = (f64::try_from(one)?, f64::try_from(other)?);
    if other == 0.0 {
        return Err(by_zero());
    }
    let remainder = one % other;
    let is_opposite = remainder != 0.0 && (remainder < 0.0) != (other < 0.0);
    Ok(Value::from(if is_opposite { remainder + other } else { remainder }))
}

/// Values to go through: those of one that has some, or several that are written one after the other. Of a text, which
/// minijinja goes through without knowing how much is left, they are its letters.
fn iterable(state: &State, values: Rest<Value>) -> Result<Value, Error> {
    match &values[..] {
        [value] if value.as_str().is_some_and(|text| !text.is_empty()) => {
            let letters: Vec<Value> = value.try_iter()?.collect();
            state.consume_fuel(letters.len() as u64)?;
            Ok(letters.into())
        }
        [value] => check_iterable(value).map(|()| value.clone()),
        values => Ok(Tuple::from(values.to_vec()).into()),
    }
}

/// Checks that a value has others to go through.
pub(super) fn check_iterable(value: &Value) -> Result<(), Error> {
    match value.kind() {
        kind @ (ValueKind::None | ValueKind::Bool | ValueKind::Number | ValueKind::Plain) => {
            Err(wrong(format!("{kind} is not iterable")))
        }
        _ => Ok(()),
    }
}

/// A value that has slices.
fn sliceable(value: Value) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::String | ValueKind::Seq | ValueKind::Iterable | ValueKind::Bytes => Ok(value),
        kind => Err(wrong(format!("{kind} has no slices"))),
    }
}

/// The macro `inner`, which takes surplus arguments by the names of [`SURPLUS`].
fn variadic(inner: Value) -> Result<Value, Error> {
    let mut parameters = Vec::new();
    for name in inner.get_attr("arguments")?.try_iter()? {
        parameters.push(name.to_string());
    }
    let takes = SURPLUS.map(|name| parameters.iter().any(|parameter| parameter == name));
    parameters.retain(|parameter| !SURPLUS.contains(&&**parameter));
    Ok(Value::from_object(Variadic { inner, parameters, takes }))
}

/// A macro that takes any arguments.
#[derive(Debug)]
struct Variadic {
    inner: Value,
    /// The names of those that it lists.
    parameters: Vec<String>,
    /// `true` for each of [`SURPLUS`] that it has.
    takes: [bool; 2],
}

impl Object for Variadic {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match key.as_str()? {
            "arguments" => Some(self.parameters.iter().map(|name| Value::from(name.as_str())).collect()),
            _ => self.inner.get_item(key).ok(),
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::NonEnumerable
    }

    fn call(self: &Arc<Self>, state: &mut State<'_, '_>, arguments: &[Value]) -> Result<Value, Error> {
        let (values, named): (&[Value], Kwargs) = from_args(arguments)?;
        let known = if self.takes[0] { self.parameters.len().min(values.len()) } else { values.len() };
        let (values, surplus) = values.split_at(known);
        let (mut passed, mut others) = (Vec::new(), Vec::new());
        for name in named.args() {
            let is_known = match name {
                _ if !self.takes[1] => true,
                "caller" => self.inner.get_attr("caller")?.is_true(),
                name => self.parameters.iter().any(|known| known == name),
            };
            let pair = (name.to_owned(), named.get::<Value>(name)?);
            if is_known { passed.push(pair) } else { others.push(pair) }
        }
        if self.takes[0] {
            passed.push((SURPLUS[0].to_owned(), Tuple::from(surplus.to_vec()).into()));
        }
        if self.takes[1] {
            passed.push((SURPLUS[1].to_owned(), Value::from_pairs(others)));
        }
        let mut arguments = values.to_vec();
        arguments.push(passed.into_iter().collect::<Kwargs>().into());
        self.inner.call(state, &arguments)
    }
}
