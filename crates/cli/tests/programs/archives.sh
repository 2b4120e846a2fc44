# tar, gzip, bzip2, xz and zip, there and back.
# needs: tar gzip xz bzip2 zip unzip

mkdir -p source/deep/er
seq 20000 >source/numbers
head -c 70000 /dev/zero >source/zeros
echo 'a script' >source/deep/run; chmod 751 source/deep/run
ln -s deep/run source/link; ln source/numbers source/deep/hard
touch -d @1000000000 source/deep/er source/numbers
sum() { (cd "$1" && find . -type f | LC_ALL=C sort | xargs sha256sum | sha256sum); }
for kind in none gzip bzip2 xz; do
    [ $kind = none ] && flag= || flag=--$kind
    tar -c $flag -f archive -C source .
    rm -rf there; mkdir there
    tar -x $flag -f archive -C there
    test "$(sum source)" = "$(sum there)"
    stat -c '%n %a %h %s' there/deep/run there/numbers; readlink there/link; stat -c %Y there/numbers there/deep/er
done
tar -tf <(tar -c --sort=name -C source .) | head -n 3
tar -c -C source . | (mkdir piped; tar -x -C piped); sum piped
tar -cf grown -C source numbers; tar -rf grown -C source zeros; tar --delete -f grown numbers; tar -tf grown
gzip -9 -k -f source/numbers; gzip -t source/numbers.gz; zcat source/numbers.gz | tail -n 1; gzip -l source/numbers.gz | awk 'NR == 2 { print $2 }'
xz -T2 -k source/zeros; xz -dc source/zeros.xz | wc -c
(cd source; zip -qry ../all.zip . -x '*.xz' '*.gz'); unzip -qt all.zip; mkdir unzipped; unzip -q all.zip -d unzipped
diff -r --no-dereference source unzipped -x '*.xz' -x '*.gz' && echo same
