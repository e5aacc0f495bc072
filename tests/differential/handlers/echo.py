"""TorchServe's twin of examples/echo: answers with the request's body, or its field `data`, and the media type it came with."""


def handle(data, context):
    """One answer for each request of the batch. Called with nothing once, to initialize."""
    if data is None:
        return None
    return [answer(row, index, context) for index, row in enumerate(data)]


def answer(row, index, context):
    """The body of one request."""
    name = "body" if "body" in row else "data"
    header = context.get_request_header(index, name) or {}
    context.set_response_content_type(index, header.get("content-type") or "application/octet-stream")
    return bytes(row[name])
