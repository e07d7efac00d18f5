package Test::Nginx::Log;

# The error log of an instance.
#
#   Test::Nginx::Log->new($file)
#   ->mark                     position of its present end
#   ->lines($re, $mark)        whole lines that match, since the mark (or the
#                              beginning), without line ends
#   ->wait_line($re, $seconds, $mark)
#                              the first such line, or undef
#   ->tail($n)                 the last lines as one text
#   ->allow($re)               lines that complaints() shall pass over
#   ->complaints               lines of level alert, emerg and crit
#   ->deaths                   lines that tell of a process that died
#   ->panics                   reports of sanitizers, of Rust's panics and of
#                              glibc's heap checks (nginx's standard error
#                              ends in this file too)

use v5.36;

use Test::Nginx::Process qw/wait_until/;

sub new ($class, $file) {
	return bless { file => $file, allowed => [] }, $class;
}

sub mark ($self) { return -s $self->{file} // 0 }

sub lines ($self, $re, $mark = 0) {
	open my $fh, '<', $self->{file} or return;
	seek $fh, $mark, 0;

	my @found;

	while (my $line = <$fh>) {
		next unless $line =~ $re;
		push @found, $line =~ s/\r?\n\z//r;
	}

	return @found;
}

sub wait_line ($self, $re, $seconds = 5, $mark = 0) {
	return wait_until(sub { ($self->lines($re, $mark))[0] }, $seconds);
}

sub tail ($self, $n = 20) {
	my @all = $self->lines(qr/ \[(?!debug|info)/);
	@all = $self->lines(qr/./) unless @all;
	splice @all, 0, @all - $n if @all > $n;

	return join "\n", @all;
}

sub allow ($self, $re) { push @{ $self->{allowed} }, $re }

# Under load there are millions of lines: most must not match at their beginning.
sub complaints ($self) {
	return $self->_unexpected(qr/^\S+ \S+ \[(?:alert|emerg|crit)\] /);
}

sub deaths ($self) {
	my $exit = qr/exited (?:on signal|with (?:fatal )?code [1-9])/;
	return $self->_unexpected(qr/^\S+ \S+ \[\w+\] \S+ [\w ]*process \d+ $exit/);
}

sub panics ($self) {
	my $text = qr/
		(?:Address|Leak|Memory|Thread|UndefinedBehavior)Sanitizer
		| : \s runtime \s error: \s
		| ^thread \s .* \s panicked \s at \s
		| ^(?:malloc|free|realloc|munmap_chunk|double\ free)\b.*
			(?:corrupt|invalid|double)
	/x;
	# nginx's own lines begin with the date.
	return grep { $_ =~ $text } $self->_unexpected(qr/^(?!\d{4}\/\d\d\/)/);
}

sub _unexpected ($self, $re) {
	return grep {
		my $line = $_;
		!grep { $line =~ $_ } @{ $self->{allowed} };
	} $self->lines($re);
}

1;
