//! Does one bad thing, in the phase that it is told to, and is well-behaved otherwise.
//!
//! The order is the request's body, `ACT [ARGUMENT]`, or `postprocess/ACT [ARGUMENT]`; for `init` it is the setting
//! `handler: {init: "ACT [ARGUMENT]"}`, and for `describe` `handler: {describe: ..}`. `tests/guests/README.md` lists the acts. An act that ends (a flood, a read) goes on as
//! an honest request: tensor `x`, fp32 `[1, 16]` of ones, and the answer `{"carry": BYTES, "outputs": NUMBER}`.

mod descriptions;
mod faults;
mod inputs;
mod remains;
mod responses;

use handler_sdk::{Context, Description, Error, Handler, Outputs, Request, Response, Step};
use serde::{Deserialize, Serialize};

/// Keeps the order for `describe`.
#[derive(Default)]
pub struct Hostile {
    describe: String,
}

/// The section `handler:` of model-config.yaml.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    /// What to do in `init`.
    init: String,
    /// What to do in `describe`.
    describe: String,
}

/// An honest answer.
#[derive(Serialize)]
struct Answer {
    carry: usize,
    outputs: usize,
}

/// What to do.
struct Order<'a> {
    act: &'a str,
    argument: &'a str,
}

impl<'a> Order<'a> {
    fn parse(text: &'a str) -> Self {
        let (act, argument) = text.split_once(' ').unwrap_or((text, ""));
        Self { act, argument }
    }

    fn number(&self) -> Result<u32, Error> {
        Ok(self.argument.parse()?)
    }

    fn unknown(&self) -> Error {
        Error::bad_request(format!("there is no act `{}`", self.act))
    }
}

impl Handler for Hostile {
    fn init(context: &Context) -> Result<Self, Error> {
        let settings: Settings = context.settings()?;
        if !settings.init.is_empty() && !faults::commit(&Order::parse(&settings.init))? {
            return Err(Order::parse(&settings.init).unknown());
        }
        Ok(Self {
            describe: settings.describe,
        })
    }

    fn preprocess(&self, request: Request) -> Result<Step, Error> {
        let text = request.text()?;
        if let Some(order) = text.strip_prefix("postprocess/") {
            return Ok(Step::infer(inputs::honest(1)?).with_carry(order));
        }
        let order = Order::parse(text);
        if faults::commit(&order)? {
            return Ok(Step::infer(inputs::honest(1)?));
        }
        match responses::answer(&order)? {
            Some(response) => Ok(Step::Done(response)),
            None => inputs::step(&order)?.ok_or_else(|| order.unknown()),
        }
    }

    fn postprocess(&self, outputs: Outputs, carry: &[u8]) -> Result<Response, Error> {
        // A carry that is not an order is the ballast of act `carry`.
        let order = Order::parse(std::str::from_utf8(carry).unwrap_or_default());
        faults::commit(&order)?;
        match responses::answer(&order)? {
            Some(response) => Ok(response),
            None => Response::json(&Answer {
                carry: carry.len(),
                outputs: outputs.iter().count(),
            }),
        }
    }

    fn describe(&self) -> Result<Description, Error> {
        let order = Order::parse(&self.describe);
        if order.act.is_empty() || faults::commit(&order)? {
            return Ok(Description::default());
        }
        descriptions::answer(&order)
    }
}

handler_sdk::export!(Hostile);

#[cfg(test)]
mod tests;
