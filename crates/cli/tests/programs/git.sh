# Git, from init to gc.
# needs: git

git config --global user.name A; git config --global user.email a@example.org
git config --global init.defaultBranch main; git config --global advice.detachedHead false
export GIT_AUTHOR_DATE='2020-01-02T03:04:05Z' GIT_COMMITTER_DATE='2020-01-02T03:04:05Z'
git init -q work; cd work
for n in 1 2 3; do seq "$n" 20 >numbers; echo "$n" >"file$n"; git add .; git commit -q -m "change $n"; done
git log --format='%h %s' --stat | cat
git checkout -q -b feature HEAD~1
echo more >>file1; git commit -q -am 'on a branch'
git checkout -q main; git merge -q --no-edit feature; git log --format='%s %p' --graph -3
git checkout -q -b rebased HEAD~1; echo r >r; git add r; git commit -q -m 'to rebase'; git rebase -q main; git log --format=%s -2
git checkout -q -b conflict HEAD~1; echo mine >r; git add r; git commit -q -m mine
git merge -q rebased || git diff --name-only --diff-filter=U
git checkout -q --theirs r; git add r; git commit -q -m merged; git show --format=%s --stat HEAD | cat
git diff --stat main..rebased; git diff --word-diff HEAD~1 -- r | tail -n 2; git blame -s numbers | head -n 2
echo scratch >>file1; git stash -q; git status --short; git stash pop -q; git status --short; git checkout -q file1
git tag -a -m 'a tag' v1; git describe; git cherry-pick --no-commit main~1 -m 1 2>/dev/null || git reset -q --hard
git mv file2 renamed; git status --short; git reset -q --hard; git clean -fdq
git clone -q . ../copy; git clone -q --bare . ../bare.git; cd ../copy
git checkout -q -b pushed; echo p >p; git add p; git commit -q -m pushed; git push -q ../bare.git pushed; git -C ../bare.git log --format=%s -1 pushed
git fetch -q ../bare.git pushed; git rev-parse FETCH_HEAD
git submodule --quiet status; git worktree add -q ../tree main; ls ../tree | head -n 2
for n in $(seq 60); do echo "$n" >many; git add many; git commit -q -m "many $n"; done
git bisect start HEAD HEAD~60 >/dev/null; git bisect run sh -c 'test "$(cat many)" -lt 37' | grep 'first bad' | cut -d' ' -f2-; git bisect reset >/dev/null 2>&1
git repack -q -a -d; git gc -q --prune=now; git fsck --full --strict 2>&1 | grep -v dangling || true
git count-objects -v | grep -E '^(count|packs|garbage)'
git archive --format=tar HEAD | tar -t | head -n 2; git format-patch -1 --stdout | git apply --check -R && echo patch applies
git grep -n 60 -- many; git rev-list --count HEAD
