package Test::Nginx::Daemon;

# A small backend for behaviour that nginx does not give.  It runs in a process
# of its own, serves many connections, and its behaviour may be changed while
# it runs.
#
#   Test::Nginx::Daemon->start(dir => $dir, listen => $where, %behaviour)
#       listens when this returns; $where: '127.0.0.1:8081', '[::1]:8081',
#       '127.0.0.1' . ':' . port(8081), or 'unix:/path'
#   ->set(%behaviour)  in force for everything that begins after the return
#   ->requests         list of { time, connection, method, uri, headers, body },
#                      in order, headers as lower-case name -> value; each is
#                      noted before it is answered
#   ->count            number of requests
#   ->connections      number of accepted connections
#   ->stop             ends it: its port refuses, its connections are gone
#   ->restart          starts it again where it was; counters go on
#   ->pid
#
# %behaviour (a request finds: its uri's, else the common one):
#   body          reply's body; default: the logical port, or the path's last
#                 part
#   status        => 200
#   headers       => { Name => value }
#   delay         => 0      seconds before the reply
#   hang          => 0      1: takes requests and never replies
#   partial       => 0      1: replies with half of the body, then closes
#   reset         => ''     'accept' or 'request': resets the connection then
#   silent_close  => 0      N: closes a connection right after its Nth reply,
#                           which did not say so
#   keepalive     => 1      0: says "Connection: close" and closes
#   protocol      => 'http' 'tcp': sends the body on connect, and closes
#   uris          => { '/health' => { %behaviour } }  whole path, no arguments
#
# Where connections shall be refused, leave port(N) without a daemon, or stop
# it: ports stay reserved.

use v5.36;

use IO::Handle;
use IO::Socket::IP;
use IO::Socket::UNIX;
use JSON::PP ();
use Socket qw/SOCK_STREAM SOL_SOCKET SO_LINGER/;

use Test::Nginx::Ports qw/expand_ports logical_ports/;
use Test::Nginx::Process qw/now spawn alive end_process/;

# How long an idle daemon sleeps; work wakes it up.
use constant TICK => 1;

my $json = JSON::PP->new->latin1->canonical;
# Keys are sorted: a line for a connection has no body to begin with.
my $REQUEST = qr/\A\{"body":/;

my $serial = 0;

sub start ($class, %how) {
	my $dir = delete $how{dir} or die "backend: dir is missing\n";
	my $listen = expand_ports(delete $how{listen} // '127.0.0.1:8081');
	my $file = "$dir/backend-" . ++$serial;

	my ($name) = logical_ports($listen) =~ m{([^:/]+)\z};
	my $self = bless {
		listen => $listen, file => $file, seconds => delete $how{seconds},
		behaviour => { body => $name, %how },
	}, $class;

	$self->set();
	$self->restart();

	return $self;
}

sub pid ($self) { return $self->{pid} }

sub set ($self, %change) {
	%{ $self->{behaviour} } = (%{ $self->{behaviour} }, %change);

	open my $fh, '>', "$self->{file}.new" or die "$self->{file}: $!\n";
	print {$fh} $json->encode($self->{behaviour});
	close $fh or die "$self->{file}: $!\n";
	rename "$self->{file}.new", $self->{file} or die "$self->{file}: $!\n";
}

sub restart ($self) {
	return if $self->{pid} && alive($self->{pid});

	my $listener = $self->_listener();
	my $seconds = $self->{seconds} // 300;

	$self->{pid} = spawn(
		keep => [$listener], seconds => $seconds,
		run => sub { $self->_serve($listener) },
	);

	close $listener;
}

sub stop ($self) {
	my $pid = delete $self->{pid} or return;
	end_process($pid, signals => [ [ KILL => 5 ] ]);
	unlink $1 if $self->{listen} =~ /\Aunix:(.*)\z/;
}

sub requests ($self) {
	return map { $json->decode($_) } grep { /$REQUEST/ } $self->_lines();
}

# There may be very many: they are not decoded for this.
sub count ($self) { return scalar grep { /$REQUEST/ } $self->_lines() }

sub connections ($self) {
	return scalar grep { !/$REQUEST/ } $self->_lines();
}

sub _lines ($self) {
	open my $fh, '<:raw', "$self->{file}.log" or return;

	# The last line may still be on its way.
	return grep { /\n\z/ } <$fh>;
}

sub _listener ($self) {
	my $listen = $self->{listen};
	my $s;

	if (my ($path) = $listen =~ /\Aunix:(.*)\z/) {
		unlink $path;
		$s = IO::Socket::UNIX->new(
			Local => $path, Listen => 1024, Type => SOCK_STREAM,
		);
	}
	else {
		my ($host, $port) = $listen =~ /\A\[?([^\]]+)\]?:(\d+)\z/
			or die "backend: cannot listen on \"$listen\"\n";
		$s = IO::Socket::IP->new(
			LocalHost => $host, LocalPort => $port, Listen => 1024,
			Type => SOCK_STREAM, ReuseAddr => 1,
		);
	}

	die "backend: cannot listen on \"$listen\": $!\n" unless $s;
	$s->blocking(0);

	return $s;
}

# From here on: the daemon's own process.

sub _serve ($self, $listener) {
	local $SIG{PIPE} = 'IGNORE';

	open my $log, '>>:raw', "$self->{file}.log" or die "$self->{file}: $!\n";
	$log->autoflush(1);

	my %by_fd;
	my $accepted = 0;

	while (1) {
		my ($r, $w) = ('', '');
		my $sleep = TICK;
		vec($r, fileno $listener, 1) = 1;

		for my $c (values %by_fd) {
			my $fd = fileno $c->{socket};
			my $rest = defined $c->{due} ? $c->{due} - now() : 0;

			# A reply that is due later holds back what follows on the
			# connection, but not the news that the client is gone.
			vec($r, $fd, 1) = 1;
			vec($w, $fd, 1) = 1 if $c->{out} ne '' && $rest <= 0;
			$sleep = $rest if $rest > 0 && $rest < $sleep;
		}

		select($r, $w, undef, $sleep) > 0 or next;

		for my $fd (keys %by_fd) {
			my $c = $by_fd{$fd};
			my $open = 1;
			$open = _read($self, $c, $log) if vec($r, $fd, 1);
			$open = _write($self, $c, $log) if $open && vec($w, $fd, 1);
			delete $by_fd{$fd} unless $open;
		}

		next unless vec($r, fileno $listener, 1);

		while (my $s = $listener->accept()) {
			my $c = _accepted($self, $s, ++$accepted, $log) or next;
			$by_fd{ fileno $s } = $c;
		}
	}
}

sub _accepted ($self, $s, $number, $log) {
	my $how = $self->_behaviour('');
	print {$log} $json->encode({ time => now(), connection => $number }), "\n";

	$s->blocking(0);
	my $c = {
		socket => $s, number => $number, in => '', out => '', replies => 0,
	};

	return _reset($c) if ($how->{reset} // '') eq 'accept';

	if (($how->{protocol} // 'http') eq 'tcp') {
		@$c{qw/out last/} = ($how->{body}, 1);
		$c->{due} = now() + $how->{delay} if $how->{delay};
	}

	return $c;
}

sub _read ($self, $c, $log) {
	my $n = sysread $c->{socket}, $c->{in}, 65_536, length $c->{in};

	return 1 if !defined $n && $!{EAGAIN};
	return 0 unless $n;

	return _answer($self, $c, $log);
}

sub _write ($self, $c, $log) {
	my $n = syswrite $c->{socket}, $c->{out};

	return $!{EAGAIN} ? 1 : 0 unless defined $n;
	substr $c->{out}, 0, $n, '';
	return 1 if $c->{out} ne '';

	delete $c->{due};
	return 0 if $c->{last};

	return _answer($self, $c, $log);
}

# Takes a whole request off the bytes read and puts its reply in line.
# Returns false when the connection is to be closed.
sub _answer ($self, $c, $log) {
	return 1 if $c->{out} ne '' || $c->{hung} || $c->{last};

	my $request = _take_request($c) // return 1;
	@$request{qw/time connection/} = (now(), $c->{number});
	print {$log} $json->encode($request), "\n";

	my $how = $self->_behaviour($request->{uri} =~ s/\?.*//sr);

	return _reset($c) if ($how->{reset} // '') eq 'request';
	return $c->{hung} = 1 if $how->{hang};

	my $body = $how->{body};
	my $last = !($how->{keepalive} // 1)
		|| ($request->{headers}{connection} // '') =~ /close/i
		|| $request->{version} eq '1.0'
		&& ($request->{headers}{connection} // '') !~ /keep-alive/i;

	my %headers = (
		'Content-Length' => length $body,
		Connection => $last ? 'close' : 'keep-alive',
		%{ $how->{headers} // {} },
	);

	$c->{replies}++;
	$c->{last} = $last || $how->{partial}
		|| $how->{silent_close} && $c->{replies} >= $how->{silent_close};
	$c->{due} = now() + $how->{delay} if $how->{delay};

	substr $body, int(length($body) / 2), length $body, '' if $how->{partial};
	$body = '' if $request->{method} eq 'HEAD';

	$c->{out} = join "\r\n", 'HTTP/1.1 ' . ($how->{status} // 200) . ' Text',
		(map { "$_: $headers{$_}" } sort keys %headers), '', $body;

	return 1;
}

sub _take_request ($c) {
	my ($head) = $c->{in} =~ /\A(.*?\r\n\r\n)/s or return undef;
	my ($first, @lines) = split /\r\n/, $head;
	my ($method, $uri, $version) = $first =~ m{\A(\S+) (\S+) HTTP/(\S+)\z}
		or return undef;

	my %headers = map { /\A([^:]+):\s*(.*)\z/ ? (lc $1, $2) : () } @lines;
	my $rest = substr $c->{in}, length $head;
	my $body = '';

	if (($headers{'transfer-encoding'} // '') eq 'chunked') {
		$rest =~ s/\A(.*?(?:\A|\r\n)0\r\n\r\n)//s or return undef;
		$body = $1;
	}
	elsif (my $length = $headers{'content-length'}) {
		return undef if length $rest < $length;
		$body = substr $rest, 0, $length, '';
	}

	$c->{in} = $rest;

	return {
		method => $method, uri => $uri, version => $version,
		headers => \%headers, body => $body,
	};
}

# Closing with a zero linger time sends a reset.
sub _reset ($c) {
	setsockopt $c->{socket}, SOL_SOCKET, SO_LINGER, pack 'ii', 1, 0;
	close $c->{socket};

	return 0;
}

sub _behaviour ($self, $uri) {
	open my $fh, '<:raw', $self->{file} or die "$self->{file}: $!\n";
	my $all = $json->decode(do { local $/; <$fh> });

	return { %$all, %{ ($all->{uris} // {})->{$uri} // {} } };
}

1;
