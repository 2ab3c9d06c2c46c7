"""Tasks that do what damaged files make native decoders do; the tests let a child run them."""

import os
import time
from typing import Any


def crash() -> dict[str, Any]:
    os.abort()


def hang() -> dict[str, Any]:
    time.sleep(60)
    return {}


def spin() -> dict[str, Any]:
    while True:
        pass


def eat() -> dict[str, Any]:
    return {"length": len(bytearray(100 * 2**30))}


def fill(into: str) -> dict[str, Any]:
    with open(into, "wb") as file:
        file.truncate(2**40)
    return {}


def recurse(depth: int = 0) -> dict[str, Any]:
    return recurse(depth + 1)


def speak() -> dict[str, Any]:
    print("Canary^Carla", flush=True)
    os.write(2, b"Canary^Carla")
    raise ValueError("Canary^Carla")


def environment() -> dict[str, Any]:
    return {"names": sorted(os.environ)}


def not_a_number() -> dict[str, Any]:
    return {"value": float("nan")}
