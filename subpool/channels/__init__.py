"""Channels: frames, the lanes that carry them, and wake-ups. See `lane` for the rules and `frames` for the codec."""
