//! Open files on their way between processes (SCM_RIGHTS of unix(7)).
//!
//! A socket can be sent through sockets, even through itself, so that nobody could ever receive it again. Whenever a
//! socket is closed while files are on their way, those that only such circles hold are found and dropped.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::{Rc, Weak};

use super::{Channel, Net, Socket, as_socket};
use crate::vfs::FileDescription;

/// Open files that are on their way. They are counted until they are received or dropped.
#[derive(Default)]
pub struct Rights {
    files: Vec<Rc<FileDescription>>,
    net: Option<Rc<Net>>,
}

impl Rights {
    /// Puts files on their way.
    pub fn new(net: &Rc<Net>, files: Vec<Rc<FileDescription>>) -> Rights {
        net.flight.count.set(net.flight.count.get() + files.len());
        Rights { files, net: Some(net.clone()) }
    }

    /// Says whether there are no files.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Returns the same files once more, for who only looks.
    pub fn copy(&self) -> Rights {
        match &self.net {
            Some(net) => Rights::new(net, self.files.clone()),
            None => Rights::default(),
        }
    }

    /// Returns the files, which have arrived.
    pub fn receive(mut self) -> Vec<Rc<FileDescription>> {
        self.uncount();
        std::mem::take(&mut self.files)
    }

    fn uncount(&self) {
        if let Some(net) = &self.net {
            net.flight.count.set(net.flight.count.get().saturating_sub(self.files.len()));
        }
    }
}

impl Drop for Rights {
    fn drop(&mut self) {
        self.uncount();
        if let Some(net) = &self.net {
            net.flight.bury(std::mem::take(&mut self.files));
        }
    }
}

/// All open files that are on their way.
#[derive(Default)]
pub struct Flight {
    count: Cell<usize>,
    /// The channels that have carried some.
    carriers: RefCell<Vec<Weak<Channel>>>,
    /// Files to be dropped, and whether somebody is at it: one may be a socket that others wait in, and those again,
    /// deeper than a stack is.
    graveyard: RefCell<Vec<Rc<FileDescription>>>,
    burying: Cell<bool>,
}

impl Flight {
    /// Returns how many files are on their way.
    pub fn count(&self) -> usize {
        self.count.get()
    }

    /// Notes that a channel carries files.
    pub fn carry(&self, channel: &Rc<Channel>) {
        let mut carriers = self.carriers.borrow_mut();
        carriers.retain(|carrier| carrier.strong_count() > 0);
        if !carriers.iter().any(|carrier| std::ptr::eq(carrier.as_ptr(), Rc::as_ptr(channel))) {
            carriers.push(Rc::downgrade(channel));
        }
    }

    fn carriers(&self) -> Vec<Rc<Channel>> {
        let mut carriers = self.carriers.borrow_mut();
        carriers.retain(|carrier| carrier.upgrade().is_some_and(|channel| carries(&channel)));
        carriers.iter().filter_map(Weak::upgrade).collect()
    }

    /// Returns the files that are on their way.
    pub fn files(&self) -> Vec<Rc<FileDescription>> {
        let mut files = Vec::new();
        for channel in self.carriers() {
            channel.for_each_rights(|rights| files.extend(rights.files.iter().cloned()));
        }
        files
    }

    fn bury(&self, files: Vec<Rc<FileDescription>>) {
        self.graveyard.borrow_mut().extend(files);
        if self.burying.replace(true) {
            return;
        }
        loop {
            let next = self.graveyard.borrow_mut().pop();
            match next {
                Some(file) => drop(file),
                None => break,
            }
        }
        self.burying.set(false);
    }

    /// Drops the files that can not be received any more. `closing` is about to lose a descriptor, which still counts.
    pub fn collect(&self, closing: &Socket) {
        if self.count.get() == 0 {
            return;
        }
        let carriers = self.carriers();
        let mut unreached = self.held_by_flight(&carriers, closing);
        let mut reached: Vec<Rc<Channel>> =
            carriers.iter().filter(|channel| !unreached.contains(&Rc::as_ptr(channel))).cloned().collect();
        while let Some(channel) = reached.pop() {
            channel.for_each_rights(|rights| {
                for socket in rights.files.iter().filter_map(|file| as_socket(&file.file)) {
                    let held = socket.inboxes().into_iter();
                    reached.extend(held.filter(|inbox| unreached.remove(&Rc::as_ptr(inbox))));
                }
            });
        }
        let lost = carriers.iter().filter(|channel| unreached.contains(&Rc::as_ptr(channel)));
        let lost: Vec<Rights> = lost.flat_map(|channel| channel.take_rights()).collect();
        drop(lost);
    }

    /// Returns the inboxes of sockets that have no descriptor: all who hold them are on their way.
    fn held_by_flight(&self, carriers: &[Rc<Channel>], closing: &Socket) -> HashSet<*const Channel> {
        let mut times: HashMap<*const FileDescription, usize> = HashMap::new();
        let mut held = HashSet::new();
        for channel in carriers {
            channel.for_each_rights(|rights| {
                for file in &rights.files {
                    *times.entry(Rc::as_ptr(file)).or_default() += 1;
                }
            });
        }
        for channel in carriers {
            channel.for_each_rights(|rights| {
                for file in &rights.files {
                    let Some(socket) = as_socket(&file.file) else { continue };
                    let descriptor = usize::from(std::ptr::eq(Rc::as_ptr(&socket), closing));
                    if times.get(&Rc::as_ptr(file)) == Some(&(Rc::strong_count(file) - descriptor)) {
                        held.extend(socket.inboxes().iter().map(Rc::as_ptr));
                    }
                }
            });
        }
        held
    }
}

fn carries(channel: &Channel) -> bool {
    let mut any = false;
    channel.for_each_rights(|rights| any |= !rights.is_empty());
    any
}
