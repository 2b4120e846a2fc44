//! File systems, and the other things that descriptors stand for.
//!
//! [`memfs`] is the file system in memory: tmpfs, and the overlay on an image. [`host`] has the images, and
//! [`hostfs`] passes host directories through. [`proc`] and [`dev`] are what the kernel tells of itself;
//! [`pipe`], [`eventfd`], [`timerfd`], [`signalfd`], [`pidfd`], [`epoll`], [`inotify`] and [`hostio`] are files without a place in the tree.
//! [`root`] puts the namespace of a sandbox together.

pub mod anon;
pub mod dev;
pub mod epoll;
pub mod eventfd;
pub mod host;
pub mod hostfs;
pub mod hostio;
pub mod inotify;
pub mod memfs;
pub mod pidfd;
pub mod pipe;
pub mod proc;
pub mod pty;
mod read_ahead;
pub mod root;
pub mod signalfd;
pub mod terminal;
#[cfg(test)]
mod tests;
pub mod timerfd;
