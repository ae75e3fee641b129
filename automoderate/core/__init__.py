"""The rules, without the wire: one state machine."""
