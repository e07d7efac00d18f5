package Test::Nginx::Load;

# Load that goes on in another process while the test does something else.
#
#   Test::Nginx::Load->start(dir => $dir, seconds => 5, %request, %how)
#       %request and %how as for burst(); records => 1 to keep an entry for
#       each request (0 by default, for long runs); processes => 1.
#       Returns when the first request has been answered.
#   ->finish             waits for the end of the time, returns the result of
#                        burst() (several processes are added up)
#   ->finish(now => 1)   ends the load at once: requests under way are
#                        completed, no new ones are begun
#   ->running            true while it has not ended
#
#   wrk(dir => $dir, uri =>, port =>, seconds => 2, connections => 20,
#       threads => 2, headers => {}, script => $file)
#       runs wrk to its end, over kept-alive connections, with a script of
#       its own if one is given; returns
#       { total, ok, failed, errors => {connect, read, write, timeout},
#       per_second, text }.  ok counts 2xx and 3xx; a connection that the
#       server closed, e.g. on a reload, counts as a read error.

use v5.36;

use Exporter qw/import/;
use Storable qw/nstore retrieve/;

use Test::Nginx::Burst qw/burst/;
use Test::Nginx::Ports qw/port/;
use Test::Nginx::Process
	qw/now wait_until spawn alive reap end_process/;

our @EXPORT_OK = qw/wrk/;

my $serial = 0;

sub start ($class, %how) {
	my $dir = delete $how{dir} or die "load: dir is missing\n";
	my $seconds = delete $how{seconds} // 5;
	my $processes = delete $how{processes} // 1;

	my $self = bless { seconds => $seconds, began => now(), parts => [] },
		$class;

	# Ports are handed out by the process that holds their locks.
	$how{port} = port($how{port} // 8080) unless defined $how{socket};

	for (1 .. $processes) {
		my $file = "$dir/load-" . ++$serial;
		my $pid = spawn(
			seconds => $seconds + 30,
			run => sub { _child($file, $seconds, %how) },
		);
		push @{ $self->{parts} }, { pid => $pid, file => $file };
	}

	for my $part (@{ $self->{parts} }) {
		wait_until(
			sub { -e "$part->{file}.on" || !alive($part->{pid}) }, 15,
		) or die "load: no request was answered within 15 seconds\n";
	}

	return $self;
}

sub running ($self) {
	return !!grep { alive($_->{pid}) } @{ $self->{parts} };
}

sub pids ($self) { return map { $_->{pid} } @{ $self->{parts} } }

sub finish ($self, %opt) {
	if ($opt{now}) {
		kill TERM => $_ for grep { alive($_) } $self->pids();
	}

	# Requests under way at the end have their own timeout.
	my $limit = $self->{began} + $self->{seconds} + 25 - now();
	my %sum = (
		total => 0, ok => 0, failed => 0, by_status => {}, by_body => {},
		errors => {}, reused => 0, retried => 0, requests => [], seconds => 0,
	);

	for my $part (@{ $self->{parts} }) {
		wait_until(sub { !alive($part->{pid}) }, $limit)
			or end_process($part->{pid});

		die "load: process $part->{pid} left no result\n"
			unless -e $part->{file};
		my $one = retrieve($part->{file});

		$sum{$_} += $one->{$_} for qw/total ok failed reused retried/;
		push @{ $sum{requests} }, @{ $one->{requests} };
		$sum{seconds} = $one->{seconds} if $one->{seconds} > $sum{seconds};

		for my $table (qw/by_status by_body errors/) {
			$sum{$table}{$_} += $one->{$table}{$_}
				for keys %{ $one->{$table} };
		}
	}

	return \%sum;
}

sub _child ($file, $seconds, %how) {
	my $go_on = 1;
	local $SIG{TERM} = sub { $go_on = 0 };
	local $SIG{PIPE} = 'IGNORE';

	my $end = now() + $seconds;
	my $said = 0;

	# Asked for a request beyond the first round, the burst has an answer.
	my $more = sub ($n) {
		if (!$said && $n >= ($how{concurrency} // 10)) {
			$said = 1;
			open my $fh, '>', "$file.on" or die "$file.on: $!\n";
		}

		return $go_on && now() < $end;
	};

	my $result = burst(records => 0, %how, more => $more);

	nstore($result, "$file.new");
	rename "$file.new", $file or die "$file: $!\n";
}

sub wrk (%how) {
	my $seconds = $how{seconds} // 2;
	my $host = $how{host} // '127.0.0.1';
	my $file = ($how{dir} // die "wrk: dir is missing\n") . '/wrk-' . ++$serial;
	my %headers = %{ $how{headers} // {} };

	my $pid = spawn(
		out => $file, seconds => $seconds + 30,
		exec => [
			'wrk', '-t', $how{threads} // 2, '-c', $how{connections} // 20,
			'-d', "${seconds}s", '--timeout', '10s',
			(map { ('-H', "$_: $headers{$_}") } sort keys %headers),
			(map { ('-s', $_) } grep { defined } $how{script}),
			"http://$host:" . port($how{port} // 8080) . ($how{uri} // '/'),
		],
	);

	wait_until(sub { !alive($pid) }, $seconds + 25) or end_process($pid);

	open my $fh, '<', $file or die "wrk: no output\n";
	my $text = do { local $/; <$fh> };
	my ($total) = $text =~ /(\d+) requests in /
		or die "wrk failed:\n$text\n";

	my ($bad) = $text =~ /Non-2xx or 3xx responses: (\d+)/;
	my ($rate) = $text =~ m{Requests/sec:\s+([\d.]+)};
	my %errors = map { $_ => 0 } qw/connect read write timeout/;

	if (my ($list) = $text =~ /Socket errors: (.*)/) {
		$errors{$1} = $2 while $list =~ /(\w+) (\d+)/g;
	}

	my $failed = $bad // 0;
	$failed += $_ for values %errors;

	return {
		total => $total, ok => $total - ($bad // 0), failed => $failed,
		errors => \%errors, per_second => $rate, text => $text,
	};
}

1;
