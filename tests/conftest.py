"""What all tests share. Its place makes the helpers beside it (`faultserver`, `virtualtime`) importable by their names."""
