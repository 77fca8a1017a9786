//! Reads kernel state by name, through BTF and a small BPF program, and calibrates itself.
