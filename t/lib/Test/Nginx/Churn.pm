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
#       conf        => '/upstreamconf'  the location with upstream_conf that
#                             actors use besides
#       members     one list of actors for each client, as well as knobs or in
#                   their place; see below
#       rate        => 200    changes a second that each client of actors aims
#                             at; it does not go on to the next before it has
#                             made up for what it is behind
#       pause       => 0.002  seconds between two changes of a client of knobs
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
#   Clients of actors add, remove, readdress and change servers.  An actor is
#   a connection that is kept alive, over which changes are sent without
#   waiting for the replies: { upstream, servers => [addresses that are its
#   own], present => [those of them in the configuration], backups => 1 if it
#   may add backups, weights => [..] }.  Since nobody else touches its
#   servers, it knows what each reply must say.  A server that is not in the
#   model's upstream was removed; one that is has weight, state and backup.
#
#   clients(\%values)     lists of knobs for two clients, out of
#                         { upstream => { 8081 => { param => [values] } } }: the
#                         first has what nginx counts in its totals (state,
#                         weight), the second the rest of the same servers
#   outcome($status, $model, @servers)  the same for clients of actors, which
#                         own these servers
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

use Test::Nginx::HTTP qw/http_request dial format_request/;
use Test::Nginx::Ports qw/port expand_ports/;
use Test::Nginx::Process qw/now wait_until spawn alive end_process/;

our @EXPORT_OK = qw/clients differences outcome totals/;

# A client that insists gives up after this many attempts.
use constant ATTEMPTS => 50;

# Replies that are kept in words.
use constant KEPT => 20;

# Changes under way on one connection.
use constant DEPTH => 16;

# Time between two looks at what is due, in seconds.
use constant TICK => 0.004;

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
		$self->_spawn($dir, sub ($file) { _child($file, $serial, \@knobs, %how) });
	}

	for my $actors (@{ $how{members} }) {
		my @actors = map {
			my $actor = $_;
			+{ %$actor, map { $_ => [ map { expand_ports($_) }
				@{ $actor->{$_} // [] } ] } qw/servers present/ };
		} @$actors;
		$self->_spawn($dir, sub ($file) {
			_members($file, $serial, \@actors, %how);
		});
	}

	for my $part (@{ $self->{parts} }) {
		wait_until(
			sub { -e "$part->{file}.on" || !alive($part->{pid}) }, 15,
		) or die "churn: no change was answered within 15 seconds\n";
	}

	return $self;
}

sub _spawn ($self, $dir, $code) {
	my $file = "$dir/churn-" . ++$serial;
	my $pid = spawn(
		seconds => $self->{seconds} + 60, run => sub { $code->($file) },
	);
	push @{ $self->{parts} }, { pid => $pid, file => $file };
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

sub outcome ($status, $model, @servers) {
	my @found;

	for my $upstream (sort keys %$model) {
		my %shown = map { $_->{server} => $_ }
			@{ $status->{upstreams}{$upstream}{peers} };
		my $wanted = $model->{$upstream};

		for my $server (map { expand_ports($_) } @servers) {
			my $peer = $shown{$server};
			my $is = $peer && _word($peer->{weight}, _admin($peer->{state}),
				$peer->{backup});
			my $want = $wanted->{$server} && _word(
				@{ $wanted->{$server} }{qw/weight state backup/});

			push @found, "\"$upstream\" $server: " . ($is // 'not there')
				. ', not ' . ($want // 'removed')
				if ($is // '') ne ($want // '');
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

		$shown = _admin($shown) if $param eq 'state';

		push @found, "$param is $shown, not $wanted->{$param}"
			if $shown ne $wanted->{$param};
	}

	return @found;
}

# What was asked of a server: one that failed is up as far as operators are
# concerned.
sub _admin ($state) {
	return { unavail => 'up', draining => 'drain' }->{$state} // $state;
}

sub _word ($weight, $state, $backup) {
	return "weight=$weight $state" . ($backup ? ' backup' : '');
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

	while (@servers && now() < $end) {
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

# The client of actors.
sub _members ($file, $seed, $actors, %how) {
	my $began = now();
	my $end = $began + ($how{seconds} // 5);
	my $rate = $how{rate} // 200;
	my %result = (
		sent => 0, acked => 0, workers => {}, failed => {}, wrong => [],
		backwards => [], model => {},
	);

	srand $$ + $seed;
	local $SIG{PIPE} = 'IGNORE';

	for my $actor (@$actors) {
		@$actor{qw/in waiting/} = ('', []);
		$actor->{here} = { map {
			$_ => { weight => 1, state => 'up', backup => 0 }
		} @{ $actor->{present} } };
		_dial($actor, \%how);
	}

	while (1) {
		my $now = now();
		my $due = $now < $end ? int(($now - $began) * $rate) - $result{sent} : 0;
		my @free = grep { @{ $_->{waiting} } < DEPTH } @$actors;

		while ($due > 0 && @free) {
			my $actor = splice @free, rand @free, 1;
			my $share = 1 + int($due / (@free + 1));
			my $room = DEPTH - @{ $actor->{waiting} };
			$share = $room if $share > $room;
			_send($actor, $share, \%how, \%result);
			$due -= $share;
		}

		my @late = grep { @{ $_->{waiting} } } @$actors;
		last if $now >= $end && !@late;
		die map { "no reply to $_->{waiting}[0]{args} and " . $#{ $_->{waiting} }
			. " more, but \"$_->{in}\"\n" } @late if $now > $end + 20;

		my $r = '';
		vec($r, fileno $_->{socket}, 1) = 1 for @$actors;
		select($r, undef, undef, TICK) > 0 or next;
		_receive($_, \%how, \%result)
			for grep { vec($r, fileno $_->{socket}, 1) } @$actors;

		if (!$result{said}++) {
			open my $fh, '>', "$file.on" or die "$file.on: $!\n";
		}

		# Otherwise the next round finds a change or two only.
		select undef, undef, undef, TICK if $now < $end;
	}

	for my $actor (@$actors) {
		my $model = $result{model}{ $actor->{upstream} } //= {};
		%$model = (%$model, %{ $actor->{here} });
	}

	$result{seconds} = now() - $began;
	nstore(\%result, "$file.new");
	rename "$file.new", $file or die "$file: $!\n";
}

sub _dial ($actor, $how) {
	$actor->{socket} = dial(port => $how->{port}) // die "connect: $!\n";
	my $w = '';
	vec($w, fileno $actor->{socket}, 1) = 1;
	select undef, $w, undef, 5;
	$actor->{socket}->blocking(1);
}

sub _send ($actor, $n, $how, $result) {
	my $bytes = '';

	for (1 .. $n) {
		my ($args, %expected) = _step($actor);
		my $uri = $expected{conf} ? $how->{conf} // '/upstreamconf'
			: $how->{uri} // '/upstreamcontrol';
		$bytes .= format_request(
			uri => "$uri?upstream=$actor->{upstream}&$args", keepalive => 1,
		);
		push @{ $actor->{waiting} }, { args => $args, %expected };
	}

	$result->{sent} += $n;
	syswrite($actor->{socket}, $bytes) == length $bytes
		or die "write of changes: $!\n";
}

# The next change: its arguments, and what the reply must say.
sub _step ($actor) {
	my $here = $actor->{here};
	my @here = sort keys %$here;
	my @free = grep { !$here->{$_} } @{ $actor->{servers} };
	my $server = @here ? $here[ rand @here ] : undef;
	my $what = rand;

	if (!@here || (@free && $what < 0.25)) {
		my $new = $free[ rand @free ];
		my $peer = $here->{$new} = {
			weight => _one($actor->{weights}), state => _one([qw/up up up down/]),
			backup => $actor->{backups} ? int rand 2 : 0,
		};
		my $args = "server=$new&add=&weight=$peer->{weight}&max_fails="
			. int(rand 2) . '&fail_timeout=' . int(rand 2);
		$args .= '&backup=' if $peer->{backup};
		$args .= '&down=' if $peer->{state} eq 'down';

		# This form says which id the server got.
		return ($args, conf => 1, there => _line_of_id($new, $peer),
			peer => $peer);
	}

	if ($what < 0.5) {
		delete $here->{$server};
		return ("server=$server&remove=", gone => $server);
	}

	my $peer = $here->{$server};

	# Not before its id is known.
	if (defined $peer->{id} && @free && $what < 0.65) {
		my $new = $free[ rand @free ];
		$here->{$new} = delete $here->{$server};
		return ("id=$peer->{id}&server=$new", conf => 1,
			there => _line_of_id($new, $peer));
	}

	if ($what < 0.85) {
		$peer->{state} = _one([ grep { $_ ne $peer->{state} }
			qw/up down drain/ ]);
		return ("server=$server&$peer->{state}=", there => _line($server, $peer));
	}

	$peer->{weight} = _one([ grep { $_ != $peer->{weight} }
		@{ $actor->{weights} } ]);
	return ("server=$server&weight=$peer->{weight}",
		there => _line($server, $peer));
}

sub _one ($values) { return $values->[ rand @$values ] }

# A server as listings show it.
sub _line ($server, $peer) {
	my $state = { up => '', down => ' down', drain => ' draining' }
		->{ $peer->{state} };
	my $backup = $peer->{backup} ? ' backup' : '';

	return qr/^server \Q$server\E addr=\Q$server\E weight=$peer->{weight} (?#
		)max_fails=\d+ fail_timeout=\d+ max_conns=0 conns=\d+$state$backup;$/m;
}

# The same in the form of upstream_conf, which leaves out what is the default.
sub _line_of_id ($server, $peer) {
	my $weight = $peer->{weight} == 1 ? '(?! weight=)'
		: " weight=$peer->{weight}(?=[ ;])";
	my $backup = $peer->{backup} ? ' backup' : '';
	my $down = $peer->{state} eq 'down' ? ' down' : '';
	my $drain = $peer->{state} eq 'drain' ? ' draining' : '';
	my $id = $peer->{id} // '\d+';

	return qr/^server \Q$server\E$weight[^;]*?$backup$down; # id=$id$drain$/m;
}

sub _receive ($actor, $how, $result) {
	sysread $actor->{socket}, $actor->{in}, 262_144, length $actor->{in}
		or die "connection of changes closed: $!\n";

	# Replies in JSON are costly to read: these are text, and come whole.
	while ((my $end = index $actor->{in}, "\r\n\r\n") >= 0) {
		my $head = substr $actor->{in}, 0, $end + 4;
		my ($length) = $head =~ /^Content-Length: (\d+)/mi
			or die "reply without a length: $head\n";
		last if length($actor->{in}) < $end + 4 + $length;

		my $body = substr $actor->{in}, $end + 4, $length;
		substr $actor->{in}, 0, $end + 4 + $length, '';
		my $asked = shift @{ $actor->{waiting} };
		my ($status) = $head =~ m{\AHTTP/1\.1 (\d+)};

		if ($status != 200) {
			$result->{failed}{"$status $body"}++;
			push @{ $result->{wrong} }, "$asked->{args}: $status $body"
				if @{ $result->{wrong} } < KEPT;
			next;
		}

		my ($worker) = $head =~ /^X-Worker: (\d+)/m;
		$result->{acked}++;
		$result->{workers}{ $worker // '' }++;

		my $wrong = ($asked->{there} && $body !~ $asked->{there})
			|| ($asked->{gone} && $body =~ /^server \Q$asked->{gone}\E /m);
		($asked->{peer}{id}) = $body =~ /# id=(\d+)/ if $asked->{peer};
		push @{ $result->{wrong} }, "$asked->{args}: $body"
			if $wrong && @{ $result->{wrong} } < KEPT;
	}
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
