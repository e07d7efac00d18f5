package Test::Nginx::Ports;

# Port numbers for tests that run side by side.
#
# A test names ports 8000..8999 ("logical" ports).  Each process maps them to
# real ports out of blocks that it holds by flock(), so that two processes
# never share one, and so that a port nobody listens on stays refused for the
# whole test.  Real ports lie outside the ephemeral range: an outgoing
# connection can never be given one as its own.
#
#   port(8080)           real number of a logical port; any other number is
#                        returned as it is
#   expand_ports($text)  "127.0.0.1:8080", "[::1]:8080", "localhost:8080"
#                        (also with %3A) -> real ports; "%%PORT_8080%%" -> the
#                        bare number.  Port ranges are not understood.
#   logical_ports($text) the way back, for comparing replies with golden text

use v5.36;

use Exporter qw/import/;
use Fcntl qw/:flock O_CREAT O_RDWR/;
use File::Spec;
use IO::Socket::IP;
use Socket qw/SOCK_STREAM/;

our @EXPORT_OK = qw/port expand_ports logical_ports/;

# Fifty ports serve most files with one block, and keep the number of lock
# files, which are never removed (removing races with locking), in hundreds.
use constant BLOCK => 50;

# Five digits always, which is what logical_ports() looks for.
use constant LOWEST => 10_000;

my (%real, %logical, @spare, @locks);

sub port ($n) {
	return $n if $n < 8000 || $n > 8999;

	return $real{$n} //= do {
		my $p = _take();
		$logical{$p} = $n;
		$p;
	};
}

sub expand_ports ($text) {
	my $host = qr/127\.\d+\.\d+\.\d+|\[::1\]|%5B(?:::|%3A%3A)1%5D|localhost/i;

	$text =~ s/%%PORT_(8\d{3})%%/port($1)/eg;
	$text =~ s/(?<![\d.])($host(?::|%3A))(8\d{3})(?!\d)/$1 . port($2)/egi;

	return $text;
}

sub logical_ports ($text) {
	$text =~ s/(?<=:)(\d{5})(?!\d)/$logical{$1} \/\/ $1/eg;
	$text =~ s/(?<=%3A)(\d{5})(?!\d)/$logical{$1} \/\/ $1/egi;

	return $text;
}

sub _take () {
	for (1 .. 20) {
		while (defined(my $p = shift @spare)) {
			return $p if _is_free($p);
		}

		@spare = _lock_block();
	}

	die "no free port found\n";
}

# The widest span that the kernel does not use for outgoing connections.
sub _span () {
	my ($low, $high) = (32_768, 60_999);

	if (open my $fh, '<', '/proc/sys/net/ipv4/ip_local_port_range') {
		($low, $high) = split ' ', <$fh>;
	}

	my @below = (LOWEST, $low - 1);
	my @above = ($high + 1, 65_535);
	my ($span) = sort { $b->[1] - $b->[0] <=> $a->[1] - $a->[0] }
		\@below, \@above;

	# An ephemeral range that covers everything leaves only luck and
	# _is_free().
	return $span->[1] - $span->[0] >= BLOCK ? @$span : (LOWEST, 32_767);
}

sub _lock_block () {
	my ($low, $high) = _span();
	my $blocks = int(($high - $low + 1) / BLOCK);

	my $dir = File::Spec->catdir(File::Spec->tmpdir(), "nginx-test-ports-$>");
	mkdir $dir, 0700;

	my $first = int rand $blocks;

	for my $i (0 .. $blocks - 1) {
		my $base = $low + BLOCK * (($first + $i) % $blocks);

		sysopen my $fh, "$dir/$base", O_CREAT | O_RDWR, 0600
			or die "cannot open \"$dir/$base\": $!\n";

		next unless flock $fh, LOCK_EX | LOCK_NB;

		# Held until the process, and every child forked from it, is gone.
		push @locks, $fh;
		return $base .. $base + BLOCK - 1;
	}

	die "all port blocks are locked, see \"$dir\"\n";
}

# Locks only bind processes that take them: ask the kernel as well.
sub _is_free ($p) {
	for my $host ('127.0.0.1', '::1') {
		next if $host eq '::1' && !-e '/proc/net/if_inet6';

		my $s = IO::Socket::IP->new(
			LocalHost => $host, LocalPort => $p, Listen => 1,
			Type => SOCK_STREAM, ReuseAddr => 1,
		);

		return 0 if !$s && $!{EADDRINUSE};
	}

	return 1;
}

1;
