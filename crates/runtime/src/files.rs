//! The files of a running sandbox: [`Files`].

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use lg_control::{DirEntry, FileFacts, MAX_CHUNK_BYTES, Reply, Request, WriteMode};

use crate::CallError;
use crate::connection::Connection;

/// Reads and writes files of the guest, as its superuser. Paths are absolute, in the guest.
///
/// ```no_run
/// # async fn example(sandbox: &lg_runtime::Sandbox) -> Result<(), lg_runtime::CallError> {
/// let files = sandbox.files();
/// files.write("/tmp/input.txt", b"one\ntwo\n").await?;
/// assert_eq!(files.read("/tmp/input.txt").await?, b"one\ntwo\n");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Files {
    connection: Arc<Connection>,
}

fn bytes(path: impl AsRef<Path>) -> Vec<u8> {
    path.as_ref().as_os_str().as_bytes().to_vec()
}

impl Files {
    pub(crate) fn new(connection: Arc<Connection>) -> Self {
        Self { connection }
    }

    async fn done(&self, request: Request) -> Result<(), CallError> {
        self.connection.call(request, Vec::new()).await.map(drop)
    }

    /// Reads a regular file.
    ///
    /// # Errors
    /// The errno of the guest's kernel, such as ENOENT; see [`CallError`].
    pub async fn read(&self, path: impl AsRef<Path>) -> Result<Vec<u8>, CallError> {
        let path = bytes(path);
        let mut contents = Vec::new();
        loop {
            let chunk = self.read_at(&path, contents.len() as u64, MAX_CHUNK_BYTES).await?;
            let is_last = chunk.len() < MAX_CHUNK_BYTES;
            contents.extend_from_slice(&chunk);
            if is_last {
                return Ok(contents);
            }
        }
    }

    /// Reads up to `len` bytes of a regular file from `offset` on; fewer only at its end, or beyond 256 KiB.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn read_chunk(
        &self,
        path: impl AsRef<Path>,
        offset: u64,
        len: usize,
    ) -> Result<Vec<u8>, CallError> {
        self.read_at(&bytes(path), offset, len.min(MAX_CHUNK_BYTES)).await
    }

    async fn read_at(&self, path: &[u8], offset: u64, len: usize) -> Result<Vec<u8>, CallError> {
        let request = Request::ReadFile { path: path.to_vec(), offset, len: len as u32 };
        match self.connection.call(request, Vec::new()).await? {
            Reply::Bytes(bytes) => Ok(bytes),
            _ => Err(CallError::Answer),
        }
    }

    /// Writes a regular file: makes it, or replaces what is in it.
    ///
    /// # Errors
    /// As [`read`](Self::read); ENOSPC where a limit is reached. What was written by then stays.
    pub async fn write(&self, path: impl AsRef<Path>, contents: &[u8]) -> Result<(), CallError> {
        let path = bytes(path);
        let mut mode = WriteMode::Replace;
        let mut offset = 0;
        loop {
            let chunk = &contents[offset..contents.len().min(offset + MAX_CHUNK_BYTES)];
            self.done(Request::WriteFile {
                path: path.clone(),
                offset: offset as u64,
                bytes: chunk.to_vec(),
                mode,
                permissions: 0o644,
            })
            .await?;
            offset += chunk.len();
            mode = WriteMode::Into;
            if offset == contents.len() {
                return Ok(());
            }
        }
    }

    /// Tells of what is at a path; a last link is not followed.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn stat(&self, path: impl AsRef<Path>) -> Result<FileFacts, CallError> {
        match self.connection.call(Request::StatFile { path: bytes(path) }, Vec::new()).await? {
            Reply::File(facts) => Ok(facts),
            _ => Err(CallError::Answer),
        }
    }

    /// Lists a directory, sorted by name.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn list(&self, path: impl AsRef<Path>) -> Result<Vec<DirEntry>, CallError> {
        let path = bytes(path);
        let (mut all, mut cursor) = (Vec::new(), 0);
        loop {
            let request = Request::ListDir { path: path.clone(), cursor };
            match self.connection.call(request, Vec::new()).await? {
                Reply::Entries { entries, next } => {
                    all.extend(entries);
                    match next {
                        Some(next) => cursor = next,
                        None => break,
                    }
                }
                _ => return Err(CallError::Answer),
            }
        }
        all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// Makes a directory, and those above it that are missing. One that is there is fine.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn make_dir(&self, path: impl AsRef<Path>) -> Result<(), CallError> {
        self.done(Request::MakeDir { path: bytes(path), permissions: 0o755, parents: true }).await
    }

    /// Removes a file, or a directory with all that is in it.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn remove(&self, path: impl AsRef<Path>) -> Result<(), CallError> {
        self.done(Request::Remove { path: bytes(path), recursive: true }).await
    }

    /// Gives a file or directory another name, which must be free.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn rename(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<(), CallError> {
        self.done(Request::Rename { from: bytes(from), to: bytes(to) }).await
    }
}
