"""The method: pure functions of arrays, without files, flags or loops."""
