package Test::Nginx::Burst;

# Many requests at once from one process, over non-blocking sockets.
#
#   burst(%request, %how)
#
# %request as in Test::Nginx::HTTP, where uri may also be a sub that is given
# the request's number (from 0) and returns a uri.  %how:
#   n           => 100    requests in all; or
#   more        => sub    asked before each request: false ends the burst
#   concurrency => 10     requests under way at the same time, 900 at most
#   keepalive   => 0      1: a connection carries requests for as long as the
#                         server lets it
#   records     => 1      keep an entry for each request
#
# Returns a hash reference:
#   total       requests done; = ok + failed
#   ok          replies with a 2xx status
#   failed      other replies, and requests that got none
#   by_status   { 200 => count, .. }   whole replies only
#   by_body     { body => count, .. }  bodies of 2xx replies, first 200 bytes
#   errors      { text => count, .. }  requests without a whole reply
#   reused      requests sent over a connection that had carried another one
#   retried     requests sent again since the server had closed the idle
#               connection under them; not failures: a client must do this
#   seconds     duration
#   requests    [ { n, uri, started, ended, status, body, error, reused } ]
#               in order of completion; started and ended are times of now(),
#               started is taken before the first byte (or the connect) of
#               the attempt that was answered

use v5.36;

use Exporter qw/import/;

use Test::Nginx::HTTP qw/dial format_request connect_error/;
use Test::Nginx::Ports qw/expand_ports/;
use Test::Nginx::Process qw/now/;
use Test::Nginx::Response;

our @EXPORT_OK = qw/burst/;

# select() cannot watch descriptors from 1024 on.
use constant MOST => 900;

use constant TIMEOUT => 10;

sub burst (%how) {
	my $n = $how{n} // 100;
	my $more = delete $how{more};
	my $most = $how{concurrency} // 10;
	$most = MOST if $most > MOST;

	my $self = bless {
		how => \%how, keep => $how{records} // 1, next => 0,
		timeout => $how{timeout} // TIMEOUT,
		head => uc($how{method} // 'GET') eq 'HEAD',
		more => $more // sub { $_[0] < $n },
		by_fd => {}, idle => [],
		result => {
			total => 0, ok => 0, failed => 0, by_status => {},
			by_body => {}, errors => {}, reused => 0, retried => 0,
			requests => [],
		},
	}, __PACKAGE__;

	my $begin = now();
	my $open = 1;

	while (1) {
		while ($open && keys %{ $self->{by_fd} } < $most) {
			$open = $self->{more}->($self->{next}) or last;
			$self->_begin();
		}

		last unless %{ $self->{by_fd} };
		$self->_turn();
	}

	$self->{result}{seconds} = now() - $begin;

	return $self->{result};
}

sub _begin ($self) {
	my $n = $self->{next}++;
	my $uri = $self->{how}{uri} // '/';
	$uri = $uri->($n) if ref $uri eq 'CODE';
	$uri = expand_ports($uri) if $self->{how}{map_ports};

	my $record = { n => $n, uri => $uri, error => '', status => 0, body => '' };

	$self->_send($record, shift @{ $self->{idle} });
}

# Starts the attempt over an idle connection, or over a new one.
sub _send ($self, $record, $socket = undef) {
	$record->{reused} = $socket ? 1 : 0;
	$record->{started} = now();

	my $connected = !!$socket;
	$socket //= dial(%{ $self->{how} });
	return $self->_done($record, "connect: $!") unless $socket;

	# The text is the same for all but the uri.
	my $bytes = $self->{bytes}{ $record->{uri} }
		//= format_request(%{ $self->{how} }, uri => $record->{uri});
	delete $self->{bytes} if keys %{ $self->{bytes} } > 1000;

	$self->{by_fd}{ fileno $socket } = {
		socket => $socket, record => $record, out => $bytes, in => '',
		connected => $connected, deadline => now() + $self->{timeout},
	};
}

sub _turn ($self) {
	my ($r, $w) = ('', '');

	for my $fd (keys %{ $self->{by_fd} }) {
		my $c = $self->{by_fd}{$fd};
		vec($r, $fd, 1) = 1 if $c->{connected};
		vec($w, $fd, 1) = 1 if $c->{out} ne '';
	}

	my $ready = select $r, $w, undef, 0.1;
	my $now = now();

	for my $fd (keys %{ $self->{by_fd} }) {
		my $c = $self->{by_fd}{$fd};

		if ($ready > 0) {
			$self->_writable($c) if vec($w, $fd, 1);
			$self->_readable($c)
				if vec($r, $fd, 1) && $self->{by_fd}{$fd};
		}

		$self->_drop($c, 'timed out')
			if $now > $c->{deadline} && ($self->{by_fd}{$fd} // 0) == $c;
	}
}

sub _writable ($self, $c) {
	if (!$c->{connected}) {
		my $error = connect_error($c->{socket});
		return $self->_drop($c, $error) if $error ne '';
		$c->{connected} = 1;
	}

	my $n = syswrite $c->{socket}, $c->{out};

	# The server may have answered before it stopped reading: let the read
	# find out what became of the request.
	$c->{out} = defined $n ? substr($c->{out}, $n) : $!{EAGAIN} ? $c->{out} : '';
}

sub _readable ($self, $c) {
	my $n = sysread $c->{socket}, $c->{in}, 65_536, length $c->{in};

	return if !defined $n && ($!{EAGAIN} || $!{EINTR});
	my $error = defined $n ? '' : "read: $!";

	my $reply = eval {
		Test::Nginx::Response->parse(
			\$c->{in}, head => $self->{head}, eof => !$n,
		);
	};
	return $self->_drop($c, $@ =~ s/\n\z//r) if $@;

	if (!$reply) {
		return if $n;
		return $self->_retry($c) if $c->{record}{reused} && $c->{in} eq '';
		return $self->_drop($c, $error || ($c->{in} eq ''
			? 'closed without a reply' : 'closed inside a reply'));
	}

	delete $self->{by_fd}{ fileno $c->{socket} };

	if ($self->{how}{keepalive} && $reply->reusable() && $c->{out} eq '') {
		push @{ $self->{idle} }, $c->{socket};
	}
	else {
		close $c->{socket};
	}

	$self->_done($c->{record}, '', $reply);
}

sub _retry ($self, $c) {
	delete $self->{by_fd}{ fileno $c->{socket} };
	close $c->{socket};
	$self->{result}{retried}++;
	$self->_send($c->{record});
}

sub _drop ($self, $c, $error) {
	delete $self->{by_fd}{ fileno $c->{socket} };
	close $c->{socket};
	$self->_done($c->{record}, $error);
}

sub _done ($self, $record, $error, $reply = undef) {
	my $result = $self->{result};

	$record->{ended} = now();
	$record->{error} = $error;
	$result->{total}++;
	$result->{reused}++ if $record->{reused};

	if ($reply) {
		$record->{status} = $reply->status();
		$record->{body} = $reply->body();
		$result->{by_status}{ $reply->status() }++;
	}
	else {
		$result->{errors}{$error}++;
	}

	if ($record->{status} =~ /\A2/) {
		$result->{ok}++;
		$result->{by_body}{ substr $record->{body}, 0, 200 }++;
	}
	else {
		$result->{failed}++;
	}

	push @{ $result->{requests} }, $record if $self->{keep};
}

1;
