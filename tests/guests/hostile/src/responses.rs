//! Acts with a response, in `preprocess` (answered without inference) and in `postprocess`.

use handler_sdk::{Error, Response};

use crate::{Order, remains};

/// The response of the act; `None` if it is none of these.
pub fn answer(order: &Order) -> Result<Option<Response>, Error> {
    let plain = Response::text("hostile");
    Ok(Some(match order.act {
        "done" => plain,
        "status" => plain.with_status(order.argument.parse()?),
        "empty-status" => Response::bytes("", Vec::new()).with_status(order.argument.parse()?),
        "header" => header(plain, order.argument),
        "header-newline" => plain.with_header("x-split", "a\r\nset-cookie: b=c"),
        "header-name" => plain.with_header("x split:", "a"),
        "headers" => headers(plain, order.number()?),
        "header-bytes" => plain.with_header("x-long", "v".repeat(order.number()? as usize)),
        "content-type" => Response::bytes(order.argument, "hostile"),
        "content-type-newline" => Response::bytes("text/plain\r\nset-cookie: b=c", "hostile"),
        "search" => Response::text(remains::search(order.argument).to_string()),
        "body-bytes" => Response::bytes("text/plain", vec![b'x'; order.number()? as usize]),
        _ => return Ok(None),
    }))
}

/// `NAME VALUE`.
fn header(response: Response, argument: &str) -> Response {
    let (name, value) = argument.split_once(' ').unwrap_or((argument, ""));
    response.with_header(name, value)
}

fn headers(response: Response, count: u32) -> Response {
    (0..count).fold(response, |response, index| {
        response.with_header(format!("x-{index}"), "v")
    })
}
