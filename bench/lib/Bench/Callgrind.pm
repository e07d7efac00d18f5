package Bench::Callgrind;

# Instructions of nginx, in user space, as valgrind's callgrind counts them.
#
#   new($session)      nothing if there is no valgrind
#   program            what to run in the place of nginx, in one process
#                      ("master_process off;"), since only that is counted
#   per_request($nginx, keep => $name, begin => sub, %burst)
#                      starts and stops that nginx twice, with FEW and with MANY
#                      requests, and divides the difference, which leaves
#                      start, end and first connections out.  The requests are
#                      those of burst(), one at a time over one connection;
#                      "begin" is called before them.  The profile of the
#                      longer run is kept as build/bench/callgrind.NAME.
#                      Returns { all, plain, allocations }
#
# What malloc() and free() cost depends on the holes that the reading of the
# configuration left in the heap: by chance, 2 % of a request either way, which
# is more than the module costs.  "plain" leaves what happens inside of them
# out; "allocations" is the number of calls that this hides.

use v5.36;

use Test::Nginx;

use constant FEW => 200;
use constant MANY => 1200;

# Those of the C library, as others call them.
my $ALLOCATOR = qr/\A(?:__libc_)?(?:malloc|free|cfree|calloc|realloc|memalign
	|posix_memalign|aligned_alloc)(?:@.*)?\z/x;
my $LIBRARY = qr{/libc[.-][^/]*\z};

sub new ($class, $session) {
	return if system 'command -v valgrind >/dev/null';

	my $dir = $session->dir();
	my $nginx = $session->binary();
	my $program = "$dir/nginx-under-callgrind";

	open my $fh, '>', $program or die "cannot write \"$program\": $!\n";
	print {$fh} <<"SCRIPT";
#!/bin/sh
# What it is, it says faster alone.
if [ "\$1" = -V ]; then exec '$nginx' -V; fi
exec valgrind --tool=callgrind --callgrind-out-file='$dir/callgrind.%p' \\
    --log-file='$dir/valgrind.%p' '$nginx' "\$@"
SCRIPT
	close $fh or die "cannot write \"$program\": $!\n";
	chmod 0755, $program;

	return bless {
		session => $session, dir => $dir, program => $program,
	}, $class;
}

sub program ($self) { return $self->{program} }

sub per_request ($self, $nginx, %how) {
	my ($keep, $begin) = delete @how{qw/keep begin/};
	my %count;

	for my $n (FEW, MANY) {
		$self->{session}->start($nginx);
		$begin->() if $begin;

		my $got = burst(
			%how, n => $n, concurrency => 1, keepalive => 1, records => 0,
		);
		die "requests have failed\n" if $got->{ok} != $n;

		$count{$n} = $self->_finish($nginx, $n == MANY && $keep);
	}

	return {
		map { $_ => ($count{+MANY}{$_} - $count{+FEW}{$_}) / (MANY - FEW) }
			keys $count{+MANY}->%*
	};
}

sub _finish ($self, $nginx, $keep) {
	my $file = "$self->{dir}/callgrind." . $nginx->pid();

	$self->{session}->stop($nginx);

	my $count = _read($file);
	$self->{session}->keep($file, "callgrind.$keep") if $keep;
	unlink $file;

	return $count;
}

# callgrind's format: after "ob=" comes what is in that file, after "fn=" the
# lines of that function, each a position and a cost; after "cfn=" and "calls=N"
# one with the cost of these calls, all that they called in turn included.
# "(5) name" gives a name a number, which stands for it from then on.
sub _read ($file) {
	open my $fh, '<', $file or die "callgrind has left no \"$file\": $!\n";

	my ($all, $inside, $calls) = (0, 0, 0);
	my (%name, %object, $count);
	my ($from, $to) = ('', '');

	while (my $line = <$fh>) {
		if ($line =~ /^(c?)ob=\((\d+)\)(?: (.*))?/) {
			$object{$2} = $3 if defined $3;
			$from = $object{$2} unless $1;
		}
		elsif ($line =~ /^c?fn=\((\d+)\)(?: (.*))?/) {
			$name{$1} = $2 if defined $2;
			$to = $name{$1};
		}
		elsif ($line =~ /^calls=(\d+)/) {
			$count = $1;
		}
		elsif ($line =~ /^[+\-*\d]\S* (\d+)/) {
			my $cost = $1;
			# One that calls another one is not to be counted twice.
			if (defined $count && $to =~ $ALLOCATOR && $from !~ $LIBRARY) {
				$inside += $cost;
				$calls += $count;
			}
			undef $count;
		}
		elsif ($line =~ /^(?:summary|totals): (\d+)/) {
			$all = $1;
		}
	}

	die "callgrind has counted nothing in \"$file\"\n" unless $all;

	return { all => $all, plain => $all - $inside, allocations => $calls };
}

1;
