# Coreutils, findutils, grep, sed, awk and diffutils.
# needs: find xargs grep sed awk diff patch

mkdir -p tree/{a,b/c}
for n in $(seq 1 40); do printf 'line %d of %d\n' "$n" $((n * n)) >"tree/b/c/file$n.txt"; done
ln -s ../b/c/file7.txt tree/a/link
ln tree/b/c/file1.txt tree/a/hard
find tree -type f -name '*.txt' -size -1k | wc -l
find tree -type f -name 'file1?.txt' -print0 | sort -z | xargs -0 -n 3 cat | head -n 4
find tree -links 2 -printf '%P %n\n' | sort
find tree -lname '*file7*' -exec readlink {} \;
touch -d @86400 tree/b/c/file1.txt tree/b/c/file23.txt # times of one tick are equal
find tree -name 'file2*' -newer tree/b/c/file1.txt -o -name hard -prune | sort | tail -n 1
find tree -name 'file3*.txt' -delete; ls tree/b/c | wc -l
grep -rlE 'of (4|9)$' tree | sort
grep -c line tree/b/c/file2.txt; grep -Po '\d+(?= of)' tree/b/c/file9.txt
seq 200 | grep -nx -m 2 '.*77' || true
seq 100000 | sort -rn | sed -n '1p;$p'
seq 200000 | sort -R --random-source=<(yes) | sort -n --parallel=2 -S 1M | md5sum
seq 10 | sed -e '2,4d' -e 's/\(.\)/<\1>/' -e '$a end'
cp tree/b/c/file2.txt copy; sed -i.orig 's/line/LINE/' copy; cat copy copy.orig
awk 'BEGIN { for (i = 0; i < 5; i++) s += i; print s; "date -u -d @0 +%F" | getline day; print day }'
printf 'b 2\na 1\nb 3\n' | awk '{ sum[$1] += $2 } END { for (k in sum) print k, sum[k] | "sort" }'
printf 'a\nb\nc\n' >old; printf 'a\nB\nc\nd\n' >new
diff -u --label old --label new old new >change || true
patch -s old change && cmp old new && cat change
printf 'one,two,three\n1,2,3\n' | cut -d, -f2- --output-delimiter=' '
printf 'k1 a\nk2 b\n' >left; printf 'k1 c\nk3 d\n' >right
join -a 1 left right; comm -12 <(seq 5) <(seq 3 8); seq 6 | paste -sd+ | tr + -
printf 'aabbccca' | fold -w 2 | uniq -c | tr -s ' '
head -c 300000 /dev/zero | tr '\0' x | split -b 100000 - part.; ls part.*; cat part.* | sha256sum
dd if=/dev/zero of=sparse bs=1 count=1 seek=1048575 status=none; stat -c '%s %F' sparse; truncate -s 10 sparse; wc -c <sparse
base64 <<<'some text' | base64 -d; od -An -tx1 <<<AB; nl -ba <<<"$(seq 2)"; tac <<<"$(seq 3)"; rev <<<abc
mktemp -d tmp.XXXXXX >name; test -d "$(cat name)"; touch -d @86400 old; date -u -r old +%F
timeout 0.05 sleep 5 || echo "timeout $?"; nice -n 5 true; env -i A=1 env; realpath --relative-to=tree tree/a/link
install -m 640 copy installed; stat -c %a installed; chmod u+x,go= installed; stat -c %A installed
mkfifo pipe; (echo through a fifo >pipe &); cat pipe; test -p pipe
expr 6 \* 7; seq -s ' ' 5; factor 360; numfmt --to=iec 1048576; printf '%s\n' {c,a,b} | shuf | sort | xargs
