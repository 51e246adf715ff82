"""Old bytes and old databases that must open for ever."""
