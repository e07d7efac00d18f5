package Test::Nginx::Response;

# One HTTP/1.x reply.
#
#   parse(\$bytes, head => 0|1, eof => 0|1)
#                 cuts one whole reply off the front of the bytes and returns
#                 it; undef while more bytes are needed; dies on bytes that
#                 are no HTTP reply.  1xx replies are passed over.  eof says
#                 that nothing more will come.
#   failed($text) a reply that never came: status 0 and the reason in error
#
#   ->status      200; 0 when there was no reply
#   ->reason      "OK"
#   ->headers     hash reference: lower-case name -> array of values
#   ->header($n)  first value or undef, any case
#   ->body        bytes, chunks joined
#   ->json        the body decoded; dies when it is not JSON
#   ->error       '' or why there is no reply, e.g. "connect: Connection refused"
#   ->raw         head and body as received, as far as received
#   ->reusable    true when the connection may carry another request

use v5.36;

use JSON::PP ();

sub failed ($class, $error, $raw = '') {
	return bless {
		status => 0, reason => '', headers => {}, body => '',
		error => $error, raw => $raw, reusable => 0,
	}, $class;
}

sub parse ($class, $bytes, %opt) {
	my $end = index $$bytes, "\r\n\r\n";

	if ($end < 0) {
		die "not HTTP\n" if length $$bytes >= 5 && $$bytes !~ m{\AHTTP/};
		die "head too long\n" if length $$bytes > 1_000_000;
		return undef;
	}

	my $head = substr $$bytes, 0, $end + 4;
	my $self = $class->_parse_head($head);

	if ($self->{status} < 200) {
		substr $$bytes, 0, $end + 4, '';
		return $class->parse($bytes, %opt);
	}

	my $used = $self->_take_body($bytes, $end + 4, %opt) // return undef;

	$self->{raw} = substr $$bytes, 0, $used, '';
	return $self;
}

sub status ($self) { return $self->{status} }

sub reason ($self) { return $self->{reason} }

sub headers ($self) { return $self->{headers} }

sub header ($self, $name) { return ($self->{headers}{lc $name} // [])->[0] }

sub body ($self) { return $self->{body} }

# Status and body, which for a refusal is a line: without the end of it.
sub told ($self) {
	my $words = $self->{status} < 400 ? $self->{body} : $self->{body} =~ s/\n\z//r;
	return "$self->{status} $words";
}

sub error ($self) { return $self->{error} }

sub raw ($self) { return $self->{raw} }

sub reusable ($self) { return $self->{reusable} }

sub json ($self) {
	my $data = eval { JSON::PP->new->utf8->allow_nonref->decode($self->{body}) };
	return $data unless $@;

	my $why = $@ =~ s/ at \S+ line \d+\.?\n?\z//r;
	die "not JSON ($why): status $self->{status}, error \"$self->{error}\", "
		. "body \"$self->{body}\"\n";
}

sub _parse_head ($class, $head) {
	my ($first, @lines) = split /\r\n/, $head;

	my ($version, $status, $reason)
		= $first =~ m{\AHTTP/(1\.\d) (\d{3})(?: (.*))?\z}
		or die "bad status line \"$first\"\n";

	my %headers;

	for my $line (@lines) {
		my ($name, $value) = $line =~ /\A([^\s:]+):[ \t]*(.*?)[ \t]*\z/s
			or die "bad header line \"$line\"\n";
		push @{ $headers{ lc $name } }, $value;
	}

	my $connection = lc join ',', @{ $headers{connection} // [] };

	return bless {
		status => $status + 0, reason => $reason // '', headers => \%headers,
		body => '', error => '', raw => $head,
		reusable => ($version eq '1.0'
			? $connection =~ /keep-alive/ : $connection !~ /close/) ? 1 : 0,
	}, $class;
}

# Length of head and body together, or undef while some of it is missing.
sub _take_body ($self, $bytes, $from, %opt) {
	return $from
		if $opt{head} || $self->{status} == 204 || $self->{status} == 304;

	my $coding = lc($self->header('Transfer-Encoding') // '');
	return $self->_take_chunks($bytes, $from) if $coding eq 'chunked';

	my $length = $self->header('Content-Length');

	if (defined $length) {
		return undef if length $$bytes < $from + $length;
		$self->{body} = substr $$bytes, $from, $length;
		return $from + $length;
	}

	return undef unless $opt{eof};

	$self->{reusable} = 0;
	$self->{body} = substr $$bytes, $from;
	return length $$bytes;
}

sub _take_chunks ($self, $bytes, $from) {
	my $body = '';

	while (1) {
		my $eol = index $$bytes, "\r\n", $from;
		return undef if $eol < 0;

		my ($size) = substr($$bytes, $from, $eol - $from)
			=~ /\A([0-9A-Fa-f]{1,8})(?:;.*)?\z/ or die "bad chunk size\n";
		$size = hex $size;

		if ($size == 0) {
			my $last = index $$bytes, "\r\n\r\n", $eol;
			return undef if $last < 0;
			$self->{body} = $body;
			return $last + 4;
		}

		return undef if length $$bytes < $eol + 2 + $size + 2;

		$body .= substr $$bytes, $eol + 2, $size;
		$from = $eol + 2 + $size + 2;
		die "bad end of chunk\n"
			unless substr($$bytes, $from - 2, 2) eq "\r\n";
	}
}

1;
