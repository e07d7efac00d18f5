package Test::Nginx::Churn;

# Clients that change the parameters of servers all the time, while the test
# looks at something else.
#
#   Test::Nginx::Churn->start(dir => $dir, seconds => 5, clients => [..], %how)
#       clients     one list of knobs for each client, which is a process of
#                   its own.  Knob: { upstream, server => '127.0.0.1:8081',
#                   param => 'weight', values => [..] }, where param may also
#                   be "state", with values out of up, down, drain.
#                   Each knob belongs to one client only, but clients may
#                   share a server: a change of one of them that undoes the
#                   other's then shows at the end.
#       uri         => '/upstreamcontrol', port => 8080
#       pause       => 0.002  seconds between two changes of a client
#       insist      => 0      1: what was not acknowledged is sent again, 50
#                             times at most, so that the last word about each
#                             knob was acknowledged
#       Returns when each client had an answer.
#   ->finish              waits for the end of the time, returns
#       { sent, acked, workers => { pid => changes }, seconds,
#       failed => { text => count }   not acknowledged, by what came instead
#       wrong => [..]         replies that do not show what was asked for
#       backwards => [..]     replies whose revision is below an earlier one
#       model => { upstream => { server => { param => value } } } }
#   ->pids, ->running
#
#   clients(\%values)     lists of knobs for two clients, out of
#                         { upstream => { 8081 => { param => [values] } } }: the
#                         first has what nginx counts in its totals (state,
#                         weight), the second the rest of the same servers
#   differences($status, $model)  in which a decoded status is not as the model
#                         says; in words
#   totals($status, @names)  what is wrong with nginx's totals of these
#                         upstreams in a decoded verbose status; in words.
#                         Active requests are left out: a worker that is
#                         killed takes its own with it.
#
# The location must answer with the header X-Worker: $pid.

use v5.36;

use Exporter qw/import/;
use Storable qw/nstore retrieve/;

use Test::Nginx::HTTP qw/http_request/;
use Test::Nginx::Ports qw/port expand_ports/;
use Test::Nginx::Process qw/now wait_until spawn alive end_process/;

our @EXPORT_OK = qw/clients differences totals/;

# A client that insists gives up after this many attempts.
use constant ATTEMPTS => 50;

# Replies that are kept in words.
use constant KEPT => 20;

my $serial = 0;

sub start ($class, %how) {
	my $dir = $how{dir} // die "churn: dir is missing\n";
	my $self = bless {
		seconds => $how{seconds} // 5, began => now(), parts => [],
	}, $class;

	# Ports are handed out by the process that holds their locks.
	$how{port} = port($how{port} // 8080);

	for my $knobs (@{ $how{clients} }) {
		my @knobs = map {
			+{ %$_, server => expand_ports($_->{server}) }
		} @$knobs;
		my $file = "$dir/churn-" . ++$serial;
		my $pid = spawn(
			seconds => $self->{seconds} + 60,
			run => sub { _child($file, $serial, \@knobs, %how) },
		);
		push @{ $self->{parts} }, { pid => $pid, file => $file };
	}

	for my $part (@{ $self->{parts} }) {
		wait_until(
			sub { -e "$part->{file}.on" || !alive($part->{pid}) }, 15,
		) or die "churn: no change was answered within 15 seconds\n";
	}

	return $self;
}

sub pids ($self) { return map { $_->{pid} } @{ $self->{parts} } }

sub running ($self) { return !!grep { alive($_) } $self->pids() }

sub finish ($self) {
	my $limit = $self->{began} + $self->{seconds} + 50 - now();
	my %sum = (
		sent => 0, acked => 0, workers => {}, failed => {}, wrong => [],
		backwards => [], model => {}, seconds => 0,
	);

	for my $part (@{ $self->{parts} }) {
		wait_until(sub { !alive($part->{pid}) }, $limit)
			or end_process($part->{pid});

		die "churn: process $part->{pid} left no result\n"
			unless -e $part->{file};
		my $one = retrieve($part->{file});

		$sum{$_} += $one->{$_} for qw/sent acked/;
		$sum{seconds} = $one->{seconds} if $one->{seconds} > $sum{seconds};
		push @{ $sum{$_} }, @{ $one->{$_} } for qw/wrong backwards/;

		for my $table (qw/workers failed/) {
			$sum{$table}{$_} += $one->{$table}{$_}
				for keys %{ $one->{$table} };
		}

		for my $upstream (keys %{ $one->{model} }) {
			my $servers = $one->{model}{$upstream};

			for my $server (keys %$servers) {
				my $all = $sum{model}{$upstream}{$server} //= {};
				%$all = (%$all, %{ $servers->{$server} });
			}
		}
	}

	return \%sum;
}

sub clients ($values) {
	my @clients = ([], []);

	for my $upstream (sort keys %$values) {
		for my $port (sort keys %{ $values->{$upstream} }) {
			my $params = $values->{$upstream}{$port};

			push @{ $clients[ /\A(?:state|weight)\z/ ? 0 : 1 ] }, {
				upstream => $upstream, server => "127.0.0.1:$port",
				param => $_, values => $params->{$_},
			} for sort keys %$params;
		}
	}

	return @clients;
}

sub differences ($status, $model) {
	my @found;

	for my $upstream (sort keys %$model) {
		my $shown = $status->{upstreams}{$upstream};

		for my $server (sort keys %{ $model->{$upstream} }) {
			my ($peer) = grep { $_->{server} eq $server }
				@{ $shown->{peers} // [] };

			push @found, map { "\"$upstream\" $server: $_" }
				_compare($peer, $model->{$upstream}{$server});
		}
	}

	return @found;
}

sub totals ($status, @names) {
	my @found;

	for my $name (@names) {
		my $upstream = $status->{upstreams}{$name};
		my $totals = $upstream->{leaks}{primary};
		my $peers = $upstream->{peers};

		if (!$totals) {
			push @found, "\"$name\": no totals";
			next;
		}

		my $weight = 0;
		$weight += $_->{weight} for @$peers;
		my %wanted = (
			number => scalar @$peers, counted => scalar @$peers,
			total_weight => $weight, counted_weight => $weight,
			tries => scalar(grep { !$_->{down} } @$peers),
			counted_usable => scalar(grep { !$_->{down} } @$peers),
		);

		push @found, map {
			"\"$name\": $_ is $totals->{$_}, not $wanted{$_}"
		} grep { $totals->{$_} != $wanted{$_} } sort keys %wanted;
	}

	return @found;
}

# In what a peer of a reply is not as wanted.
sub _compare ($peer, $wanted) {
	return 'is not shown' unless $peer;

	my @found;

	for my $param (sort keys %$wanted) {
		my $shown = $peer->{$param};
		$shown =~ s/s\z// if $param eq 'fail_timeout';

		if ($param eq 'state') {
			# Servers that failed are up as far as operators are concerned.
			$shown =~ s/\Aunavail\z/up/;
			$shown =~ s/\Adraining\z/drain/;
		}

		push @found, "$param is $shown, not $wanted->{$param}"
			if $shown ne $wanted->{$param};
	}

	return @found;
}

# From here on: a client's own process.

sub _child ($file, $seed, $knobs, %how) {
	my $end = now() + ($how{seconds} // 5);
	my $began = now();
	my $pause = $how{pause} // 0.002;
	my (%by_server, %revision);
	my %result = (
		sent => 0, acked => 0, workers => {}, failed => {}, wrong => [],
		backwards => [], model => {},
	);

	srand $$ + $seed;

	for my $knob (@$knobs) {
		push @{ $by_server{"$knob->{upstream} $knob->{server}"} }, $knob;
	}

	my @servers = sort keys %by_server;

	while (now() < $end) {
		my $server = $servers[ rand @servers ];
		my ($upstream, $name) = split / /, $server;
		my %change = _choose(@{ $by_server{$server} });
		my $args = join '&', "upstream=$upstream", "server=$name", map {
			$_ eq 'state' ? "$change{$_}=" : "$_=$change{$_}"
		} sort keys %change;

		for my $attempt (1 .. ($how{insist} ? ATTEMPTS : 1)) {
			my $reply = http_request(
				uri => ($how{uri} // '/upstreamcontrol') . "?$args",
				port => $how{port}, timeout => 10,
				headers => { Accept => 'application/json' },
			);
			$result{sent}++;

			if ($reply->status() == 200) {
				_acked(\%result, \%revision, $upstream, $name, \%change,
					$reply);
				last;
			}

			$result{failed}{ $reply->status()
				? $reply->status() . ' ' . $reply->body()
				: $reply->error() }++;

			# What happened to a change without an answer is not known.
			delete @{ $result{model}{$upstream}{$name} }{ keys %change };
			select undef, undef, undef, 0.02 if $how{insist};
		}

		if (!$result{said}++) {
			open my $fh, '>', "$file.on" or die "$file.on: $!\n";
		}

		select undef, undef, undef, $pause if $pause;
	}

	$result{seconds} = now() - $began;
	nstore(\%result, "$file.new");
	rename "$file.new", $file or die "$file: $!\n";
}

# Values for one or several of a server's knobs.
sub _choose (@knobs) {
	my %change;
	my $n = 1 + int rand @knobs;

	for (1 .. $n) {
		my ($knob) = splice @knobs, rand @knobs, 1;
		$change{ $knob->{param} } = $knob->{values}[ rand @{ $knob->{values} } ];
	}

	return %change;
}

sub _acked ($result, $revision, $upstream, $name, $change, $reply) {
	$result->{acked}++;
	$result->{workers}{ $reply->header('X-Worker') // '' }++;

	my $data = eval { $reply->json() } // {};
	my @wrong = _compare($data->{server}, $change);
	push @{ $result->{wrong} }, map { "\"$upstream\" $name: $_" } @wrong
		if @{ $result->{wrong} } < KEPT;

	my $now = $data->{revision} // -1;
	my $last = $revision->{$upstream} // 0;
	push @{ $result->{backwards} }, "\"$upstream\": $now after $last"
		if $now < $last && @{ $result->{backwards} } < KEPT;
	$revision->{$upstream} = $now;

	my $model = $result->{model}{$upstream}{$name} //= {};
	%$model = (%$model, %$change);
}

1;
