//! Acts in `describe`: texts that are no description, or too much of one.

use handler_sdk::{Description, Error};

use crate::Order;

/// The text of the act.
pub fn answer(order: &Order) -> Result<Description, Error> {
    let text = match order.act {
        "text" => order.argument.to_owned(),
        "long" => format!("{{\"x\":\"{}\"}}", "x".repeat(order.number()? as usize)),
        "deep" => {
            let depth = order.number()? as usize;
            format!("{{\"x\":{}{}}}", "[".repeat(depth), "]".repeat(depth))
        }
        _ => return Err(order.unknown()),
    };
    Ok(Description::from_text(text))
}
