"""tritonclient's asynchronous clients, unmodified, against a running server.

Usage: aio_client.py HTTP_HOST:PORT [GRPC_HOST:PORT]
The models are those of http_client.py.
"""

import asyncio
import sys

import numpy as np

import common


async def ask(client: object, module: object) -> None:
    assert await client.is_server_live() and await client.is_server_ready()
    assert await client.is_model_ready("multi")
    pairs = [common.rows(1, seed) for seed in range(16)]
    results = await asyncio.gather(
        *(client.infer("multi", common.inputs(module, {"a": a, "b": b})) for a, b in pairs)
    )
    for (a, b), result in zip(pairs, results):
        np.testing.assert_array_equal(result.as_numpy("sum"), a + b)
        np.testing.assert_array_equal(result.as_numpy("diff"), a - b)


async def main() -> None:
    import tritonclient.http.aio as http

    async with http.InferenceServerClient(sys.argv[1]) as client:
        await ask(client, http)
    if len(sys.argv) > 2:
        import tritonclient.grpc.aio as grpc

        async with grpc.InferenceServerClient(sys.argv[2]) as client:
            await ask(client, grpc)


asyncio.run(main())
