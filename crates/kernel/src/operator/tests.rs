//! Launching, files and forks on the mock platform.
