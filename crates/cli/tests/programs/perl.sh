# Perl: regular expressions, forks, pipes, signals, sockets.
# needs: perl

perl -MList::Util=sum -MPOSIX -we '
    use strict; use IO::Socket::INET; use IO::Handle; $| = 1;
    my %count; $count{$_}++ for "the cat and the dog and the bird" =~ /\w+/g;
    print join(",", map "$_=$count{$_}", sort keys %count), "\n";
    (my $text = "2024-05-06") =~ s/(\d+)-(\d+)-(\d+)/$3.$2.$1/; print "$text ", sum(1 .. 10), "\n";
    pipe(my $r, my $w); my $pid = fork // die;
    if (!$pid) { close $r; print $w "from the child\n"; exit 9 }
    close $w; print scalar <$r>; waitpid $pid, 0; print "status ", $? >> 8, "\n";
    local $SIG{ALRM} = sub { die "alarm\n" }; eval { alarm 1; sleep 10 }; print "caught $@";
    my $server = IO::Socket::INET->new(Listen => 1, LocalAddr => "127.0.0.1") or die $!;
    if (!fork) { my $c = $server->accept; print $c uc <$c>; exit }
    my $client = IO::Socket::INET->new(PeerAddr => "127.0.0.1", PeerPort => $server->sockport) or die $!;
    print $client "shout\n"; print scalar <$client>; wait;
    open my $f, "+>", "file" or die; print $f "b\na\n"; seek $f, 0, 0; print sort <$f>; close $f;
    print strftime("%Y-%m-%d\n", gmtime 0), `echo backquotes`; rename "file", "other" and print join(" ", glob "o*"), "\n";
'
