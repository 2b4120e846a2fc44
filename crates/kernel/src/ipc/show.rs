//! `/proc/sysvipc` (proc_sysvipc(5)).

use std::fmt::Write;

use super::{Ipc, Object};

/// A file of the directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Table {
    /// `msg`
    Messages,
    /// `sem`
    Semaphores,
    /// `shm`
    SharedMemory,
}

impl Ipc {
    /// Returns the text of a file.
    pub fn show(&self, table: Table) -> String {
        let mut text = String::new();
        // Writing to a string can not fail.
        let _ = match table {
            Table::Messages => self.show_messages(&mut text),
            Table::Semaphores => self.show_semaphores(&mut text),
            Table::SharedMemory => self.show_segments(&mut text),
        };
        text
    }

    fn show_messages(&self, text: &mut String) -> std::fmt::Result {
        writeln!(
            text,
            "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid      stime      rtime      ctime"
        )?;
        for (id, queue) in self.msg.iter() {
            let (ds, p) = (queue.show(id), queue.permission());
            writeln!(
                text,
                "{:10} {id:10}  {:4o}  {:10} {:10} {:5} {:5} {:5} {:5} {:5} {:5} {:10} {:10} {:10}",
                p.key,
                p.mode,
                ds.msg_cbytes,
                ds.msg_qnum,
                ds.msg_lspid,
                ds.msg_lrpid,
                p.uid,
                p.gid,
                p.cuid,
                p.cgid,
                ds.msg_stime,
                ds.msg_rtime,
                ds.msg_ctime
            )?;
        }
        Ok(())
    }

    fn show_semaphores(&self, text: &mut String) -> std::fmt::Result {
        writeln!(
            text,
            "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime"
        )?;
        for (id, set) in self.sem.iter() {
            let (ds, p) = (set.show(id), set.permission());
            writeln!(
                text,
                "{:10} {id:10}  {:4o} {:10} {:5} {:5} {:5} {:5} {:10} {:10}",
                p.key, p.mode, ds.sem_nsems, p.uid, p.gid, p.cuid, p.cgid, ds.sem_otime, ds.sem_ctime
            )?;
        }
        Ok(())
    }

    fn show_segments(&self, text: &mut String) -> std::fmt::Result {
        writeln!(
            text,
            "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      ctime                   rss                  swap"
        )?;
        for (id, segment) in self.shm.iter() {
            let (ds, p) = (segment.show(id), segment.permission());
            writeln!(
                text,
                "{:10} {id:10}  {:4o} {:21} {:5} {:5}  {:5} {:5} {:5} {:5} {:5} {:10} {:10} {:10} {:21} {:21}",
                p.key,
                p.mode,
                ds.shm_segsz,
                ds.shm_cpid,
                ds.shm_lpid,
                ds.shm_nattch,
                p.uid,
                p.gid,
                p.cuid,
                p.cgid,
                ds.shm_atime,
                ds.shm_dtime,
                ds.shm_ctime,
                segment.pages.resident_bytes(),
                0
            )?;
        }
        Ok(())
    }
}
