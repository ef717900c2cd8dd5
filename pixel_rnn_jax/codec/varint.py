"""Integers of any size as bytes: seven bits each, the lowest first; all but the last have bit 7."""


def pack(value: int) -> bytes:
    """Returns a number from 0 on as bytes."""
    packed = bytearray()
    while value > 127:
        packed.append(value & 127 | 128)
        value >>= 7
    return bytes([*packed, value])


def unpack(data: bytes | bytearray, position: int) -> tuple[int, int]:
    """Returns the number at a position, and the position after it.

    Raises:
        ValueError: It has no end within ten bytes.
    """
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            break
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise ValueError("a number has no end")
